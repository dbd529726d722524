"""`inspect`: what a checkpoint of any origin holds, and why training can go on from it here or not."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from unbroken.checkpoint.describe import describe
from unbroken.checkpoint.folders import INDEX, SHARD, checkpoint_names, folder_of, shards_of
from unbroken.checkpoint.sharded import HEAD, files_in, is_sharded
from unbroken.checkpoint.structure import read_structure
from unbroken.cli.args import CommandParser, add_json
from unbroken.cli.runs import require_there
from unbroken.cli.tables import MOST_ROWS, as_json_text, columns
from unbroken.errors import UsageError
from unbroken.quantities import size_text
from unbroken.text import shown

LONGEST_SENTENCE = 1000


def inspect_options(parser: CommandParser) -> None:
    """A file or a folder, and how much of it is listed."""
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="a .pth, .pt, .ckpt, .bin, .safetensors or index.json, or a folder of another program",
    )
    add_json(parser)
    parser.add_argument(
        "--tensors",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="list every tensor (default: %(default)s)",
    )
    parser.add_examples("unbroken inspect FILE", "unbroken inspect FILE --no-tensors")


def inspect_command(options: argparse.Namespace) -> None:
    """What is in a checkpoint of any origin; opens it without torch and without executing anything in it.

    Files of MMEngine, OpenPCDet, Lightning, timm, ultralytics, DeepSpeed and others, and folders of Hugging Face,
    Accelerate, DeepSpeed and torch's distributed checkpoints are known by name, with why training goes on from them
    here or not, and what can be done with them.
    """
    file, as_json = options.file, options.as_json
    require_there(file)
    if file.is_dir() and not is_sharded(file):
        _inspect_folder(file, as_json=as_json)
    elif file.name.endswith(INDEX):
        _inspect_index(file, as_json=as_json)
    else:
        _inspect_file(file, as_json=as_json, tensors=options.tensors)


def _inspect_file(file: Path, *, as_json: bool, tensors: bool) -> None:
    facts = describe(read_structure(file))
    if shard := SHARD.search(file.name):
        facts["why_no_training_state"] = (
            f"it is shard {int(shard[1])} of {int(shard[2])} of the weights, and one cannot stand for all"
        )
    if as_json:
        print(as_json_text(facts))
        return
    print(f"{shown(facts['file'])}: {facts['kind']} ({facts['format']}, {size_text(facts['size_bytes'])})")
    if is_sharded(file):
        print(f"a folder of {len(files_in(file))} files: {HEAD}, and what is sharded over the processes that trained")
    for name in ("step", "epoch"):
        if facts[name] is not None:
            print(f"{name}: {facts[name]}")
    for name, value in facts["metrics"].items():
        print(f"{shown(name)}: {shown(value)}")
    _say_why(facts["why_no_training_state"])
    print("\n" + columns([("key", "holds"), *((key, words) for key, words in facts["keys"].items())]))
    model, optimizer = facts["model"], facts["optimizer"]
    if model:
        print(f"\nmodel: {model['tensors']} tensors, {model['parameters_and_buffers']:,} parameters and buffers")
    if optimizer:
        moments = shown(", ".join(optimizer["state_names"]))
        print(f"optimizer: {optimizer['parameters_with_state']} parameters with state ({moments})")
    else:
        print("optimizer: none, training cannot be resumed from this file")
    for foreign in facts["foreign"]:
        print(f"foreign object: {shown(foreign['class'])} x {foreign['count']} ({foreign['note']})")
    if tensors and facts["tensors"]:
        rows = [(t["name"], "x".join(map(str, t["shape"])) or "scalar", t["dtype"]) for t in facts["tensors"]]
        print("\n" + columns([("tensor", "shape", "type"), *rows[:MOST_ROWS]]))
        if len(rows) > MOST_ROWS:
            print(f"... and {len(rows) - MOST_ROWS} more (--json lists all)")


def _inspect_index(file: Path, *, as_json: bool) -> None:
    shards = shards_of(file)
    missing = [name for name in shards if not (file.parent / name).is_file()]
    why = "it holds no optimizer state, and its weights lie in several files, of which one cannot stand for all"
    facts: dict[str, Any] = {
        "file": str(file),
        "kind": "Hugging Face index of shards",
        "why_no_training_state": why,
        "shards": dict(shards),
        "missing": missing,
    }
    if as_json:
        print(as_json_text(facts))
        return
    print(f"{shown(file)}: {facts['kind']} ({sum(shards.values())} tensors in {len(shards)} files)")
    _say_why(why)
    rows = [(name, str(tensors), "missing" if name in missing else "there") for name, tensors in shards.items()]
    print("\n" + columns([("shard", "tensors", "state"), *rows[:MOST_ROWS]]))


def _inspect_folder(folder: Path, *, as_json: bool) -> None:
    known = folder_of(folder)
    if known is None:
        do = f"For a run: unbroken show {folder}"
        raise UsageError(folder, "this is a folder", expected="a checkpoint file, or a folder of a known kind", do=do)
    files = [path.relative_to(folder).as_posix() for path in checkpoint_names(folder)]
    if as_json:
        facts = {"file": str(folder), "kind": known.kind, "why_no_training_state": known.why, "files": files}
        print(as_json_text(facts))
        return
    print(f"{shown(folder)}: {known.kind} ({len(files)} files)")
    _say_why(known.why)
    sizes = [(name, size_text((folder / name).stat().st_size)) for name in files[:MOST_ROWS]]
    print("\n" + columns([("file", "size"), *sizes]))


def _say_why(why: str) -> None:
    if why:
        print(f"not a training state, because {shown(why, LONGEST_SENTENCE)}")
