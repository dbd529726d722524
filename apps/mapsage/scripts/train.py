"""Train a segmentation network: `python scripts/train.py CONFIG [options]`, from the folder `apps/mapsage`.

训练分割网络；被中断后，再次运行同一条命令即可从断点继续。
"""

from unbroken.cli import run

if __name__ == "__main__":
    run("train", "mapsage")
