"""Train a segmentation network: `python scripts/train.py CONFIG [options]`, from the folder `apps/mapsage`.

训练分割网络；被中断后，再次运行同一条命令即可从断点继续。
"""

import sys

from unbroken.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["train", "mapsage", *sys.argv[1:]], typed=["python", *sys.argv]))
