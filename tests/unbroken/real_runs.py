"""What the tests of `run` and `launch` ask about a real folder, and how they ruin it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unbroken.checkpoint import FORMAT
from unbroken.checkpoint.structure import read_structure
from unbroken.config import Effect, Effects
from unbroken.launch import Job, Plan, Start, decide, gather
from unbroken.run import ITERATIONS, Survey, read_record
from unbroken.run.record import write_record
from unbroken.run.survey import survey
from unbroken.storage import Disk
from unbroken.train.state.serialise import read_tree, write_tree

CONFIG = {"width": 64, "lr": 1e-2, "epochs": 20}
EFFECTS = Effects(own=Effect.DATA, fields={"width": Effects(own=Effect.SHAPE)}, items=Effects(own=Effect.DATA))


def look(run: Path) -> Survey:
    return survey(run, ITERATIONS)


def job(run: Path, **start: Any) -> Job:
    return Job(
        recipe="open_run",
        tag="plain_loop",
        directory=run,
        config=CONFIG,
        effects=EFFECTS,
        seed=0,
        start=Start(**start),
        command="python plain_loop.py",
    )


def plan(asked: Job) -> Plan:
    return decide(asked, gather(asked))


def contents(folder: Path) -> dict[str, str]:
    """Every file of a tree with the digest of its bytes, every link with where it points."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = f"-> {path.readlink()}"
        elif path.is_file():
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def newest(run: Path) -> Path:
    return run / "iter_120.pth"


def manifest(run: Path, name: str) -> Path:
    return run / "unbroken" / "manifests" / f"{name}.json"


def drop_manifests(run: Path) -> None:
    for path in (run / "unbroken" / "manifests").iterdir():
        path.unlink()


def rewrite(path: Path, change: Callable[[dict[str, Any]], None], target: Path | None = None) -> Path:
    """Write a checkpoint again with something in it changed."""
    tree = read_tree(path)
    change(tree)
    disk, target = Disk(), target or path
    file = disk.create(target)
    write_tree(file, tree)
    disk.close(file)
    return target


def of_another_run(path: Path, target: Path | None = None) -> Path:
    def change(tree: dict[str, Any]) -> None:
        tree["unbroken"]["run"]["id"] = "77aa00bb11cc22dd"
        tree["unbroken"]["save"] = "0123456789abcdef"

    return rewrite(path, change, target)


def of_a_newer_format(path: Path) -> Path:
    return rewrite(path, lambda tree: tree["unbroken"].update(format=FORMAT + 1))


def as_mmengine(path: Path, target: Path, *, step: int) -> Path:
    def change(tree: dict[str, Any]) -> None:
        del tree["unbroken"]
        tree["meta"] = {"iter": step, "epoch": 0, "mmengine_version": "0.10.7"}

    return rewrite(path, change, target)


def data_start(path: Path) -> int:
    """Where the numbers of the first large tensor lie in the file."""
    structure = read_structure(path)
    spot = max(structure.spots.values(), key=lambda item: item.size_bytes)
    whole = path.read_bytes()
    start = spot.start
    start += 30 + int.from_bytes(whole[start + 26 : start + 28], "little")
    return start + int.from_bytes(whole[spot.start + 28 : spot.start + 30], "little")


def flip(path: Path, at: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def set_record(run: Path, **facts: Any) -> None:
    record = read_record(run)
    assert record is not None
    write_record(Disk(), run, dataclasses.replace(record, **facts))


def drop_events(run: Path, pattern: str) -> None:
    journal = run / "unbroken" / "journal.jsonl"
    kept = [line for line in journal.read_text().splitlines() if not re.search(pattern, line)]
    journal.write_text("".join(line + "\n" for line in kept))


def save_id(path: Path) -> str:
    return str(read_tree(path)["unbroken"]["save"])


def edit_json(path: Path, **facts: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))
