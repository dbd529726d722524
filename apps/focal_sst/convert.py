"""Convert data once: `python convert.py points|infos|database DATA_ROOT`, from the folder `apps/focal_sst`.

点云文本转二进制、标注文件转 npz、生成目标数据库；中断后，再次运行同一条命令即可。
"""

from focalsst.conversion import main
from unbroken.cli import run_tool

if __name__ == "__main__":
    raise SystemExit(run_tool(main))
