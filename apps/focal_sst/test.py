"""Judge a checkpoint: `python test.py --cfg_file CONFIG [--ckpt FILE | --eval_all]`, from the folder `apps/focal_sst`.

评估检查点；不指定 --ckpt 时，评估该实验最新的完好检查点。
"""

from focalsst.testing import main
from unbroken.cli import run_tool

if __name__ == "__main__":
    raise SystemExit(run_tool(main))
