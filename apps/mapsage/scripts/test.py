"""Judge weights by labelled tiles: `python scripts/test.py CONFIG CHECKPOINT`, from the folder `apps/mapsage`.

用带标签的图块评估权重；CHECKPOINT 可以是任何来源的 .pth、运行目录，或 best / latest。
"""

from mapsage.tools.test import main
from unbroken.cli import run_tool

if __name__ == "__main__":
    raise SystemExit(run_tool(main))
