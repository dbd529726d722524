"""Train the sonar detector: `python train.py --cfg_file CONFIG [options]`, from the folder `apps/focal_sst`.

训练声纳检测器；被中断后，再次运行同一条命令即可从断点继续。
"""

from unbroken.cli import run

if __name__ == "__main__":
    run("train", "focalsst")
