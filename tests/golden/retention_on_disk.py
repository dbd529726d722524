"""The rows of the retention table as real files, written by the project's own writers and by torch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tests.golden.launch_facts import OTHER, RECORD
from tests.golden.on_disk import DISK, Then
from tests.golden.retention_rows import PER_EPOCH, File, Row
from unbroken.checkpoint import FORMAT
from unbroken.checkpoint.manifest import Manifest, SaveFacts, write_manifest
from unbroken.run import RunRecord
from unbroken.run.layout import manifests, own
from unbroken.run.record import pin, write_record
from unbroken.storage.digest import DigestingFile
from unbroken.train.state.serialise import write_tree


def lay_out(row: Row, run: Path) -> Path:
    """Write everything that a row says; the folder of its checkpoints."""
    folder = row.layout.checkpoints(run)
    folder.mkdir(parents=True)
    if row.recorded:
        manifests(run).mkdir(parents=True)
        known = {**asdict(RECORD), "layout": row.layout.as_plain()}
        write_record(DISK, run, RunRecord(**known))
    for file in row.files:
        _write(file, row, run, folder)
    if row.pins:
        gone_since = [folder / name for name in row.pins if not (folder / name).exists()]
        for path in gone_since:
            path.touch()
        pin(run, dict.fromkeys(row.pins, ""), disk=DISK, clock=Then())
        for path in gone_since:
            path.unlink()
    if row.layout.pointer and any(file.name == "iter_100.pth" for file in row.files):
        (folder / row.layout.pointer).symlink_to("iter_100.pth")
    assert row.recorded or row.pins or not own(run).exists()
    return folder


def _write(file: File, row: Row, run: Path, folder: Path) -> None:
    path = folder / file.name
    if file.maker == "OpenPCDet":  # as it writes them: without a zip, without checksums
        torch.save(_tree(file, row), path, _use_new_zipfile_serialization=False)
    else:
        opened = DISK.create(path)
        digest = DigestingFile(opened)
        write_tree(digest, _tree(file, row))
        DISK.close(opened)
        if file.listed:
            _list(file, run, digest)
    if file.damaged:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if file.flipped:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def _list(file: File, run: Path, digest: DigestingFile) -> None:
    facts = SaveFacts(
        file=file.name,
        kind="weights" if file.maker == "weights" else "checkpoint",
        run=RECORD.id,
        save=file.identity,
        session="20261120_200000",
        step=file.step,
        epoch=file.step // PER_EPOCH,
        time=RECORD.created,
    )
    write_manifest(
        DISK,
        manifests(run),
        Manifest(**asdict(facts), format=FORMAT, size_bytes=digest.size_bytes, digest=digest.digest),
    )


def _tree(file: File, row: Row) -> dict[str, Any]:
    weights = {"layer.weight": torch.full((16, 16), float(file.step))}
    moments = {"state": {0: {"exp_avg": torch.ones(16, 16)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    info = {"best_score": 0.5, "best_ckpt": f"work_dirs/x/best_mIoU_iter_{row.best_step}.pth"} if row.best_step else {}
    match file.maker:
        case "predictions":
            return {"predictions": [torch.zeros(3)], "of": "three pictures"}
        case "MMEngine":
            meta = {"iter": file.step, "epoch": 0, "mmengine_version": "0.10.7"}
            return {
                "meta": meta,
                "state_dict": weights,
                "message_hub": {"runtime_info": info},
                "optimizer": moments,
            }
        case "OpenPCDet":
            return {
                "epoch": file.step // PER_EPOCH,
                "it": file.step,
                "model_state": weights,
                "optimizer_state": moments,
                "version": "pcdet+0.6.0",
            }
    run = {
        "id": OTHER if file.maker == "other run" else RECORD.id,
        "recipe": "mapsage",
        "tag": "baseline",
        "seed": RECORD.seed,
    }
    stamp = {
        "format": FORMAT + (file.maker == "newer"),
        "kind": "weights" if file.maker == "weights" else "checkpoint",
        "save": file.identity,
        "session": "20261120_200000",
        "run": run,
        "step": file.step,
        "epoch": file.step // PER_EPOCH,
        "best": {"metric": "mIoU", "value": 0.5, "step": row.best_step} if row.best_step else None,
    }
    keys = row.layout.keys
    if file.maker == "weights":
        return {keys["model"]: weights, "unbroken": stamp}
    stamp |= {"position": file.step, "dataset_size": PER_EPOCH, "tracked": ["model", "optimizer"], "parts": {}}
    return {keys["model"]: weights, keys["optimizer"]: moments, "unbroken": stamp}
