"""The kinds of file that `mutations.py` spoils: a small real run, where each file of it lies, and who reads it.

A reader may raise an UnbrokenError and nothing else. A command is typed as by a user, and may not end with a fault.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
import shutil
import sqlite3
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks import mutators as m
from torch import nn

from focalsst.dataset.infos import Annotation, read_infos, read_pickled_infos, write_infos
from unbroken.checkpoint.describe import describe
from unbroken.checkpoint.manifest import read_manifest
from unbroken.checkpoint.structure import read_structure
from unbroken.checkpoint.verify import verify_file
from unbroken.cli import main
from unbroken.clock import SystemClock
from unbroken.config import Effect, Effects, read_config
from unbroken.keep.packed import check_packed, read_list
from unbroken.keep.unpack import unpack
from unbroken.launch import Job, Start, decide, gather
from unbroken.report.audit import audit
from unbroken.report.foreign_curves import scalars_in
from unbroken.report.index import RunIndex
from unbroken.report.run_facts import facts_of
from unbroken.run import ITERATIONS, look_at, read_record
from unbroken.run.layout import manifests
from unbroken.run.record import read_pins
from unbroken.run.summary import summary_of
from unbroken.storage import Disk
from unbroken.storage.lock import read_holder
from unbroken.train import open_run, read_checkpoint
from unbroken.train.pretrained.adopting import adopt_weights
from unbroken.train.source import Source

APPS = Path(__file__).resolve().parent.parent / "apps"
CONFIG = {"width": 4, "lr": 0.1, "steps": 6}
STEPS, LAST = 6, "iter_6.pth"
LOOK = (
    "show RUN",
    "show RUN --json",
    "ls ROOT --anew",
    "verify RUN",
    "audit RUN",
    "compare RUN RUN",
    "prune RUN --explain",
    "log ROOT",
    "backup RUN MIRROR",
    "pack RUN NEW.zip",
)
Reader = Callable[[Path], object]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One file, how it is spoiled, and who reads it; words in capitals stand in the commands for places."""

    path: Path
    sound: bytes
    mutators: tuple[m.Mutator, ...]
    readers: tuple[Reader, ...]
    commands: tuple[str, ...] = ()
    without: tuple[Path, ...] = ()  # files that would answer for it


class Quiet:
    """A console that says nothing."""

    def say(self, line: str) -> None: ...

    def step(self, report: Any, line: str) -> None: ...

    def close(self) -> None: ...


def parts() -> dict[str, Any]:
    """Some of everything that a training tracks."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    return {
        "model": model,
        "optimizer": optimizer,
        "scheduler": scheduler,
        "generator": torch.Generator().manual_seed(3),
        "counters": {"seen": 0, "names": ("a", "b"), "array": np.zeros(2)},
    }


def train(root: Path) -> Path:
    """A finished run with three checkpoints, evaluations and best weights."""
    torch.manual_seed(0)
    tracked = parts()
    with open_run(root, tag="t", config=CONFIG, save_every=2, console=Quiet()) as run:
        run.track(**tracked)
        for _ in run.batches(list(range(8)), batch_size=4, steps=STEPS):
            tracked["optimizer"].zero_grad()
            loss = tracked["model"](torch.randn(4, 3)).square().mean()
            loss.backward()
            tracked["optimizer"].step()
            tracked["scheduler"].step()
            run.end_step(loss=loss)
            if run.step % 3 == 0:
                run.record_evaluation(best="acc", acc=run.step / 10)
    return root / "t"


def job(run: Path, **start: Any) -> Job:
    """What a launch of the run would ask for."""
    effects = Effects(own=Effect.DATA, items=Effects(own=Effect.DATA))
    return Job(
        recipe="open_run",
        tag="t",
        directory=run,
        config=CONFIG,
        effects=effects,
        seed=0,
        start=Start(**start),
        command="x",
    )


def restored(path: Path) -> None:
    """What a launch does with a checkpoint; a file that is refused changes nothing."""
    tracked = parts()
    before = [value.clone() for value in tracked["model"].state_dict().values()]
    try:
        source = Source(path, ITERATIONS)
        source.restore(tracked, lambda _line: None)
        source.require_all_used(tracked)
    except Exception:
        if not all(map(torch.equal, before, tracked["model"].state_dict().values())):
            raise AssertionError("a file that was refused has changed the model") from None
        raise
    for parameter in tracked["model"].parameters():
        parameter.grad = torch.zeros_like(parameter)
    tracked["optimizer"].step()
    tracked["scheduler"].step()


def described(path: Path) -> None:
    """What `inspect` says, as JSON."""
    json.dumps(describe(read_structure(path)))


def planned(run: Path, _path: Path) -> None:
    """The launch decision."""
    decide(job(run), gather(job(run)))


def spoiled_checkpoint(data: bytes, chance: random.Random) -> bytes:
    """A checkpoint with values, keys or tensors of its tree changed, written as torch writes one."""
    odd = (torch.zeros(3), torch.zeros(1).expand(2**34), torch.zeros(5, dtype=torch.int8), *m.ODD_VALUES)
    while True:
        tree = torch.load(io.BytesIO(data), weights_only=True)
        if chance.random() < 0.6:
            tree["unbroken"] = m.spoiled_tree(tree["unbroken"], chance, odd)
        else:
            tree = m.spoiled_tree(tree, chance, odd)
        made = io.BytesIO()
        with contextlib.suppress(RecursionError):  # nested deeper than can be written: another one
            torch.save(tree, made)
            return made.getvalue()


def spoiled_index(data: bytes, chance: random.Random, *, scratch: Path) -> bytes:
    """The table with a cell of another type or value."""
    scratch.write_bytes(data)
    connection = sqlite3.connect(scratch)
    table = chance.choice(("runs", "configs"))
    names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    fitting = [value for value in m.ODD_VALUES if isinstance(value, str | float | None)]
    value = chance.choice([*fitting, b"\xff", 2**62])
    if isinstance(value, str):
        value = value.encode("utf-8", "replace").decode()
    connection.execute(f"UPDATE {table} SET {chance.choice(names[1:])} = ?", (value,))
    connection.commit()
    connection.close()
    return scratch.read_bytes()


def spoiled_header(data: bytes, chance: random.Random) -> bytes:
    """A safetensors file whose JSON header is spoiled and has the right length."""
    (length,) = struct.unpack("<Q", data[:8])
    header = m.json_file(data[8 : 8 + length], chance)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def safetensors(tensors: dict[str, torch.Tensor]) -> bytes:
    """A file of that format."""
    header, body = {}, b""
    for name, tensor in tensors.items():
        raw = tensor.numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def _saved(tree: dict[str, Any], *, legacy: bool = False) -> bytes:
    made = io.BytesIO()
    torch.save(tree, made, _use_new_zipfile_serialization=not legacy)
    return made.getvalue()


def _pickled(annotations: list[Annotation]) -> bytes:
    rows = [
        {
            "point_cloud": {"lidar_idx": known.frame},
            "annos": {"name": np.array(known.names or [""])[: len(known.names)], "gt_boxes_lidar": known.boxes},
        }
        for known in annotations
    ]
    return pickle.dumps(rows, protocol=4)


def _adopted(path: Path) -> None:
    adopt_weights(parts()["model"], path)


def _unpacked(path: Path) -> None:
    target = path.parent / "unpacked"
    try:
        unpack(path, target, disk=Disk(), clock=SystemClock())
    finally:
        shutil.rmtree(target, ignore_errors=True)
        shutil.rmtree(path.parent / "unpacked.partial", ignore_errors=True)


def _indexed(cache: Path, root: Path) -> None:
    index = RunIndex(cache, Disk())
    index.rows(str(root)), index.configs(str(root))


def build(home: Path) -> dict[str, Kind]:
    """Every kind of file, around one small run in `home`, which is the current folder of what follows."""
    root, mirror, packed, weights = home / "root", home / "mirror", home / "packed.zip", home / "weights"
    run = train(root)
    own, last = run / "unbroken", run / LAST
    for typed in (
        f"pin {run} iter_4.pth",
        f"backup {run} {mirror}",
        f"pack {run} {packed}",
        f"ls {root}",
        f"log {root}",
    ):
        if main(typed.split()) != 0:
            raise RuntimeError(f"unbroken {typed} failed on a sound run")
    model = {name: value for name, value in read_checkpoint(last)["state_dict"].items() if value.is_floating_point()}
    mmengine = {"meta": {"iter": 6, "mmengine_version": "1"}, "state_dict": model, "optimizer": {"param_groups": []}}
    weights.mkdir()
    (weights / "legacy.pth").write_bytes(_saved({"model_state": model, "epoch": 3, "it": 6}, legacy=True))
    (weights / "foreign.pth").write_bytes(_saved(mmengine))
    (weights / "model.safetensors").write_bytes(safetensors(model))
    annotations = [Annotation(frame=f"{n:06}", names=("box",) * n, boxes=np.ones((n, 7), np.float32)) for n in range(4)]
    write_infos(weights / "infos.npz", annotations)
    write_infos(weights / "infos.json", annotations)
    (weights / "infos.pkl").write_bytes(_pickled(annotations))
    (home / "own.yaml").write_bytes((APPS / "focal_sst/cfgs/sonar_models/micro.yaml").read_bytes())
    shutil.copytree(APPS / "focal_sst/cfgs", home / "cfgs")
    shutil.copytree(APPS / "mapsage/configs/_base_", home / "_base_")
    (home / "own.py").write_bytes((APPS / "mapsage/configs/aerial_tiny.py").read_bytes())

    cache = Path(os.environ["UNBROKEN_CACHE"])
    in_index = partial(spoiled_index, scratch=home / "scratch.sqlite")
    pickled = m.in_zip(m.pickle_opcodes, "data.pkl")
    lines, whole = (m.json_lines, m.json_lines, *m.BYTES), (m.json_file, m.json_file, *m.BYTES)
    facts = (partial(planned, run), lambda _: summary_of(run), lambda _: facts_of(run), lambda _: audit(run))
    opened = (
        described,
        verify_file,
        lambda path: look_at(path, manifests(path.parent)),
        read_checkpoint,
        restored,
        _adopted,
    )
    inspected = ("inspect FILE", "inspect FILE --json", "verify FILE")

    def kind(path: Path, mutators: tuple[m.Mutator, ...], readers: tuple[Reader, ...], *commands: str) -> Kind:
        return Kind(path=path, sound=path.read_bytes(), mutators=mutators, readers=readers, commands=commands)

    trees = (spoiled_checkpoint, spoiled_checkpoint, spoiled_checkpoint, pickled, m.zip_fields, *m.BYTES)
    checkpoint = kind(last, trees, (*opened, partial(planned, run)), *inspected, *LOOK)
    manifest = own / "manifests" / f"{LAST}.json"
    return {
        "checkpoint": replace(checkpoint, without=(manifest,)),
        "legacy": kind(weights / "legacy.pth", (m.pickle_opcodes, *m.BYTES), opened, *inspected),
        "foreign": kind(weights / "foreign.pth", (pickled, m.zip_fields, *m.BYTES), opened, *inspected),
        "safetensors": kind(weights / "model.safetensors", (spoiled_header, *m.BYTES), opened, *inspected),
        "manifest": kind(manifest, whole, (lambda path: read_manifest(path.parent, LAST), *facts), *LOOK),
        "journal": kind(own / "journal.jsonl", lines, facts, *LOOK),
        "metrics": kind(own / "metrics.jsonl", lines, facts, *LOOK),
        "run": kind(own / "run.json", whole, (lambda _: read_record(run), *facts), *LOOK),
        "config": kind(next((own / "configs").glob("*.json")), whole, facts, *LOOK),
        "pins": kind(
            own / "pins.json", whole, (lambda _: read_pins(run),), "prune RUN --explain", "pin RUN iter_2.pth"
        ),
        "holder": kind(
            own / "holder.json", whole, (lambda _: read_holder(own), partial(planned, run)), "show RUN", "ls ROOT"
        ),
        "logged": kind(own / "logged.jsonl", lines, (), "log ROOT"),
        "backup": kind(
            mirror / "t/unbroken/backup.json", whole, (), "backup RUN MIRROR", "ls MIRROR", "verify MIRROR/t"
        ),
        "index": kind(
            next(cache.glob("*.sqlite")), (in_index, in_index, *m.BYTES), (lambda _: _indexed(cache, root),), "ls ROOT"
        ),
        "packed": kind(
            packed,
            (m.zip_fields, m.in_zip(m.json_file, "packed.json"), m.in_zip(m.json_file, "run.json"), *m.BYTES),
            (read_list, check_packed, _unpacked),
            "unpack FILE NEW",
        ),
        "infos": kind(
            weights / "infos.npz",
            (m.zip_fields, m.in_zip(m.splice, ""), m.in_zip(m.flip_bits, ""), *m.BYTES),
            (read_infos,),
        ),
        "infos-json": kind(weights / "infos.json", whole, (read_infos,)),
        "infos-pickle": kind(weights / "infos.pkl", (m.pickle_opcodes, *m.BYTES), (read_pickled_infos,)),
        "yaml": kind(
            home / "own.yaml",
            (m.text_with(m.YAML_WORDS),) * 4 + m.BYTES,
            (read_config,),
            "why focalsst --cfg_file FILE",
        ),
        "python": kind(
            home / "own.py", (m.text_with(m.PYTHON_WORDS),) * 4 + m.BYTES, (read_config,), "why mapsage FILE"
        ),
        "events": kind(
            next((run / "tensorboard").glob("*.tfevents.*")), m.BYTES, (lambda path: list(scalars_in(path)),)
        ),
    }
