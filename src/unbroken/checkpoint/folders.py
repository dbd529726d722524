"""Checkpoints that are folders of other programs, and the files in a folder that are checkpoints by their names."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from unbroken.checkpoint.kinds import OWN_FORM, WEIGHTS_HERE
from unbroken.checkpoint.sharded import is_cut_off, is_sharded
from unbroken.errors import DamagedFile, ForeignFile
from unbroken.ids import is_name
from unbroken.storage import read_json

SUFFIXES: Final = (".pth", ".pth.tar", ".pt", ".pt2", ".bin", ".ckpt", ".safetensors", ".distcp")
NAMES: Final = (".metadata", "random_states_*.pkl", "custom_checkpoint_*.pkl")  # of DCP and Accelerate
INDEX: Final = ".index.json"  # of shards: which tensor lies in which file
SHARD: Final = re.compile(r"-(\d{5})-of-(\d{5})\.(?:safetensors|bin)$")
MOST_FILES: Final = 100_000
ONE_FILE: Final = "a .safetensors or a .pth of its weights alone can begin a new run: --pretrained_model FILE"


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Whose checkpoint a folder is: each of `marks` is a pattern of names of which one is there."""

    kind: str
    marks: tuple[str, ...]
    why: str


FOLDERS: Final = (
    Folder(
        kind="distributed checkpoint of torch (DCP)",
        marks=(".metadata", "*.distcp"),
        why="its tensors lie in the files of all processes; torch makes one file of it: "
        "python -m torch.distributed.checkpoint.format_utils dcp_to_torch DIR FILE",
    ),
    Folder(
        kind="DeepSpeed checkpoint",
        marks=("*_model_states.pt",),
        why="its optimizer lies in the files of all processes, and DeepSpeed goes on from it with "
        "engine.load_checkpoint; its zero_to_fp32.py makes one file of the weights",
    ),
    Folder(
        kind="DeepSpeed checkpoints",
        marks=("latest", "zero_to_fp32.py"),
        why="its optimizer lies in the files of all processes, and DeepSpeed goes on from it with "
        "engine.load_checkpoint; its zero_to_fp32.py makes one file of the weights",
    ),
    Folder(
        kind="Accelerate checkpoint",
        marks=("random_states_*.pkl",),
        why=f"{OWN_FORM}: Accelerate goes on from it with accelerator.load_state(DIR); {ONE_FILE}",
    ),
    Folder(
        kind="Hugging Face Trainer checkpoint",
        marks=("trainer_state.json",),
        why=f"{OWN_FORM}: the Trainer goes on from it with trainer.train(resume_from_checkpoint=DIR); {ONE_FILE}",
    ),
    Folder(
        kind="Hugging Face weights in shards",
        marks=(f"*{INDEX}",),
        why="it holds no optimizer state, and its weights lie in several files, of which one cannot stand for all",
    ),
    Folder(
        kind="Hugging Face weights",
        marks=("config.json", "*.safetensors"),
        why=f"it holds no optimizer state; {WEIGHTS_HERE}",
    ),
    Folder(
        kind="Hugging Face weights",
        marks=("config.json", "pytorch_model*.bin"),
        why=f"it holds no optimizer state; {WEIGHTS_HERE}",
    ),
    Folder(
        kind="ultralytics run",
        marks=("args.yaml", "weights"),
        why="its networks are pickled objects, which stay shut; ultralytics goes on with "
        "`yolo train resume model=DIR/weights/last.pt`",
    ),
    Folder(
        kind="Lightning run",
        marks=("hparams.yaml", "checkpoints"),
        why="Lightning goes on from a file in checkpoints/ with trainer.fit(model, ckpt_path=FILE); " + ONE_FILE,
    ),
)


def folder_of(path: Path) -> Folder | None:
    """Whose checkpoint a folder is, by the names in it; None for any other folder."""
    names = sorted(os.listdir(path))[:MOST_FILES]  # noqa: PTH208 - names are all that is asked
    return next((each for each in FOLDERS if all(any(fnmatch(n, mark) for n in names) for mark in each.marks)), None)


def require_no_folder_of_others(path: Path) -> None:
    """Raise ForeignFile for a folder that is another program's checkpoint, where a file of ours is asked for."""
    if path.is_dir() and (known := folder_of(path)) is not None:
        raise ForeignFile(path, f"not a training state, because it is a {known.kind}: {known.why}")


def checkpoint_names(folder: Path, *, skip: frozenset[str] = frozenset()) -> Iterator[Path]:
    """What is below a folder that are checkpoints by their names, links left out; folders in `skip` are not entered."""
    for where, folders, files in os.walk(folder):
        ours = sorted(name for name in folders if is_sharded(Path(where, name)))
        yield from (Path(where, name) for name in ours if not Path(where, name).is_symlink())
        left = {*skip, *ours, *(name for name in folders if is_cut_off(Path(where, name)))}
        folders[:] = sorted(name for name in folders if name not in left)
        for name in sorted(files):
            path, named = Path(where, name), any(fnmatch(name, each) for each in NAMES)
            if (named or name.lower().endswith(SUFFIXES)) and not path.is_symlink():
                yield path


def shards_of(index: Path) -> Mapping[str, int]:
    """The files that an index of shards names, and how many tensors lie in each; DamagedFile for another file."""
    try:
        found = read_json(index)
    except (OSError, ValueError) as error:
        raise DamagedFile(index, f"the index of shards cannot be read ({error})") from error
    weight_map = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise DamagedFile(index, "this is no index of shards", expected="`weight_map`, of names of tensors and files")
    if unsafe := next((name for name in weight_map.values() if not is_name(name)), None):
        raise DamagedFile(index, "the index names a file outside its folder", found=repr(unsafe)[:80])
    return Counter(weight_map.values())
