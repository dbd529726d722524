"""The notebook `kaggle.ipynb`, written from here: `python -m docs.notebook apps/mapsage/kaggle.ipynb`.

The whole workflow of the guide in four cells of code, the same in every session. Ids are fixed and there are no
outputs, so that the same program always writes the same bytes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from unbroken import Disk, write_whole

TITLE = """\
# MapSage：跨多个 Kaggle 会话的训练 · A training over many Kaggle sessions

**每个会话都用同一份笔记本，不改任何内容：** 挂载代码、数据集和上一次（或所有以前）的输出，
然后 “Save Version → Save & Run All (Commit)”。程序自己找到上一次停下的位置，逐位一致地继续。

**The same notebook in every session, unchanged:** mount the code, the data set and the last output (or all earlier
ones), then "Save Version → Save & Run All (Commit)". It finds by itself where the last session stopped, and goes on
bit for bit.
"""

INSTALL_WORDS = """\
## 1. 安装 · Install

`CODE` 是本仓库所在的文件夹（作为数据集挂载，或 `git clone`）。不需要 `openmim`、`mmengine`、`mmcv`、`mmsegmentation`。
已安装时不会重复安装。第一次试用不需要数据集和 GPU：`CONFIG = "configs/aerial_tiny.py"`。

`CODE` is the folder of this repository (mounted as a data set, or cloned). The four packages of the guide are not
needed. Nothing is installed twice. For a first try without data set and GPU: `CONFIG = "configs/aerial_tiny.py"`.
"""

INSTALL = """\
import os
from importlib.util import find_spec
from pathlib import Path

INPUT = os.environ.get("UNBROKEN_SEARCH_PATH", "/kaggle/input")  # 只读的输入 · what is mounted, read-only
WORKING = os.environ.get("MAPSAGE_WORKING", "/kaggle/working")  # 提交时保存 · what a commit keeps
CODE = os.environ.get("MAPSAGE_CODE", f"{INPUT}/unbroken")
CONFIG = os.environ.get("MAPSAGE_CONFIG", "configs/segformer_b2_earthvqa_40k.py")

if not Path(CODE, "apps/mapsage").is_dir():
    raise FileNotFoundError(f"{CODE}: 这里没有本仓库，请挂载或修改 CODE · mount this repository there, or change CODE")
if find_spec("unbroken") is None:
    %pip install --quiet "{CODE}[apps,report]"
os.environ["TERM"] = "dumb"  # 逐行输出，不用进度条 · lines instead of a bar: a notebook keeps whatever is drawn
!mkdir -p "{WORKING}/MapSage_V5"
!cp -r --no-preserve=mode "{CODE}/apps/mapsage/scripts" "{CODE}/apps/mapsage/configs" "{WORKING}/MapSage_V5"
os.chdir(f"{WORKING}/MapSage_V5")
"""

MOUNTED_WORDS = """\
## 2. 数据与已挂载的内容 · The data, and what is mounted

`ls` 列出以前的会话留下的运行；`why` 说明下一格将做什么、为什么，不改动任何文件。

`ls` shows the runs that earlier sessions left; `why` says what the next cell will do, and why. Both change nothing.
"""

MOUNTED = """\
if "aerial_tiny" in CONFIG:
    !unbroken data aerial data/aerial
!unbroken ls "{INPUT}"
!unbroken why mapsage {CONFIG}
"""

TRAIN_WORDS = """\
## 3. 训练 · Train

每个会话都是同一条命令。会话结束前 10 分钟自动停下，一切已保存（退出码 75）；被终止也只损失上次保存之后的工作。

The same command in every session. It stops ten minutes before the session is over, with everything saved (exit code
75); a kill loses only the work since the last save.
"""

TRAIN = """\
!python scripts/train.py {CONFIG}
ended = _exit_code
"""

COMMIT_WORDS = """\
## 4. 查看与提交 · Look, and commit

提交后，`work_dirs/` 就是下一个会话的输入。zip 是同一运行的单个文件，已逐字节核对，可带到别处；它占用第二份空间，
而 Kaggle 总共保存 20 GB，放不下时请去掉 `pack` 这一行或减小 `--max-size`。

What is committed, `work_dirs/`, is the next session's input. The zip is the same run as one verified file, to take
elsewhere. It takes the room a second time, and Kaggle keeps 20 GB in all: leave the line `pack` out, or lower
`--max-size`, when that is too much.
"""

COMMIT = """\
TAG = Path(CONFIG).stem
!unbroken show "work_dirs/{TAG}"
!unbroken pack "work_dirs/{TAG}" "{WORKING}/{TAG}.zip" --max-size 20GB
if ended not in (0, 75):
    raise RuntimeError(f"训练未进行，退出码 {ended}，原因见上 · the training ended with exit code {ended}: see above")
"""

CELLS = (
    ("about", "markdown", TITLE),
    ("about-install", "markdown", INSTALL_WORDS),
    ("install", "code", INSTALL),
    ("about-mounted", "markdown", MOUNTED_WORDS),
    ("mounted", "code", MOUNTED),
    ("about-train", "markdown", TRAIN_WORDS),
    ("train", "code", TRAIN),
    ("about-commit", "markdown", COMMIT_WORDS),
    ("commit", "code", COMMIT),
)


def notebook() -> dict[str, Any]:
    """The notebook as a tree, in nbformat 4.5."""
    return {
        "cells": [_cell(*cell) for cell in CELLS],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _cell(name: str, kind: str, source: str) -> dict[str, Any]:
    cell = {"cell_type": kind, "id": name, "metadata": {}, "source": source.rstrip("\n").splitlines(keepends=True)}
    return cell if kind == "markdown" else {**cell, "execution_count": None, "outputs": []}


def as_text(tree: dict[str, Any]) -> str:
    """The text of a notebook's file, as Jupyter itself writes it."""
    return json.dumps(tree, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def main(arguments: list[str]) -> None:
    """Write the notebook into the named file."""
    write_whole(Disk(), Path(*arguments), as_text(notebook()).encode())


if __name__ == "__main__":
    main(sys.argv[1:])
