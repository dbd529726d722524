"""Looking whether there is room: before a save for it, and before a training for all that it will save.

Before there is a save, its size is that of the tracked tensors, of the moments to come, and of what surrounds them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from unbroken.errors import UnbrokenError
from unbroken.launch import Job, load_attribute
from unbroken.launch.disk import (
    GARBLED,
    MANIFEST_BYTES,
    SavePolicy,
    Sizes,
    disk_lines,
    forecast_disk,
    room_for,
    sizes_in,
    stored_in,
)
from unbroken.run import OpenRun, RunView
from unbroken.train.shapes import Blueprint
from unbroken.train.state import parts
from unbroken.train.state.placement import here
from unbroken.train.state.serialise import write_tree
from unbroken.train.state.tree import map_leaves, to_plain

LOG_EVERY = 10  # steps; a guess is enough for lines of a log
AMPLE = 2  # times the size of the last checkpoint
ALIGNMENT = 64  # of each tensor's bytes in the file
RECORD_BYTES, SAMPLE_BYTES, LINE_BYTES = 220, 7, 110  # of a step's record, each sample in it, a line of the log
USUAL_MOMENTS = 2  # of Adam and its kin


def room_ahead(job: Job, tracked: Mapping[str, Any], policy: SavePolicy, *, done: int, total: int | None) -> list[str]:
    """What to say before the first step: by the saves that are here, or by the tensors of a new training."""
    with suppress(OSError, UnbrokenError, *GARBLED):  # a forecast ends no training
        here = RunView(job.directory, job.layout)
        found = forecast_disk(
            policy,
            sizes_in(here) or sizes_of(job, tracked, log_every=LOG_EVERY),
            stored_in(here),
            room_for(job.directory, job.quota),
            done=done,
            total=total,
            step_s=None,
        )
        return disk_lines(job, found)
    return []


def short_of_room(run: OpenRun) -> str | None:
    """What to say when the disk is nearly full; by then, what retention would remove later has been removed.

    The save is tried all the same: the number may be wrong (quotas, other people's files), and a save that does not
    fit does no harm.
    """
    needed = AMPLE * run.store.newest_bytes
    with suppress(OSError):
        free = run.store.free_bytes
        if free >= needed:
            return None
        gone = run.store.make_room()
        now = run.store.free_bytes
        run.journal.write("disk nearly full", free_bytes=free, needed_bytes=needed, removed=gone)
        made = f"; removed as superseded: {', '.join(gone)}, now {now:,} bytes" if gone else ""
        return (
            f"warning: the disk is nearly full: {free:,} bytes free, and two checkpoints take {needed:,}{made}. "
            "Make room: the training goes on, but a save that does not fit is lost"
        )
    return None


def sizes_of(job: Job, tracked: Mapping[str, Any], *, log_every: int) -> Sizes:
    """How much a save of these parts takes once the optimizer has its moments; best weights are the model's."""
    states = {name: parts.state_of(part) for name, part in tracked.items()}
    coming = [moment for part in tracked.values() for moment in _moments_of(part)]
    whole = {
        "states": states,
        "coming": coming,
        "config": to_plain(dict(job.config)),
    }
    model = {"model": states.get("model"), "config": to_plain(dict(job.config))}
    return Sizes(
        save=_bytes_in_file(whole) + MANIFEST_BYTES,
        best=_bytes_in_file(model) + MANIFEST_BYTES if "model" in states and not job.is_script else 0,
        per_step=RECORD_BYTES + SAMPLE_BYTES * (job.samples_per_step or 1) + LINE_BYTES / max(log_every, 1),
    )


def sizes_of_blueprint(job: Job) -> Sizes:
    """The same by the model alone, made without memory; its optimizer is taken for one like Adam."""
    with torch.device("meta"):
        blueprint: Blueprint = load_attribute(job.blueprint)(job)
    model = sum(tensor.numel() * tensor.element_size() for tensor in blueprint.model.state_dict().values())
    trained = sum(item.numel() * item.element_size() for item in blueprint.model.parameters() if item.requires_grad)
    return Sizes(save=model + USUAL_MOMENTS * trained, best=model, source="by the model's shapes")


class _Counted:
    """A file of which only the length is kept."""

    def __init__(self) -> None:
        self.size_bytes = 0

    def write(self, data: bytes | memoryview, /) -> int:
        """Count the bytes."""
        size = memoryview(data).nbytes
        self.size_bytes += size
        return size

    def flush(self) -> None:
        """Nothing is kept."""


def _bytes_in_file(tree: Mapping[str, Any]) -> int:
    """The length of the file, of which only the frame is really written: its tensors are counted."""
    counted, file = list[int](), _Counted()
    seen: set[tuple[int, int]] = set()

    def count(tensor: torch.Tensor) -> torch.Tensor:
        size = tensor.numel() * tensor.element_size()
        place = (here(tensor).data_ptr(), size)
        if tensor.is_meta or place not in seen:
            counted.append(-(-size // ALIGNMENT) * ALIGNMENT)
        seen.add(place)
        return torch.empty(0, dtype=tensor.dtype)

    write_tree(file, map_leaves(tree, torch.Tensor, count))
    return file.size_bytes + sum(counted)


def _moments_of(part: Any) -> Iterator[torch.Tensor]:
    """What an optimizer that has not stepped yet will keep for each parameter, without the memory for it."""
    if not isinstance(part, Optimizer) or part.state:
        return
    for group in part.param_groups:
        of_each = _moments_per_parameter(part, group)
        for parameter in group["params"]:
            if isinstance(parameter, nn.Parameter) and not parameter.requires_grad:
                continue
            yield from (torch.empty_like(parameter, device="meta") for _ in range(of_each))
            if of_each:
                yield torch.empty((), device="meta")  # its count of steps


def _moments_per_parameter(optimizer: Optimizer, group: Mapping[str, Any]) -> int:
    match type(optimizer).__name__:
        case "SGD":
            return int(bool(group.get("momentum")))
        case "RMSprop":
            return 1 + bool(group.get("momentum")) + bool(group.get("centered"))
        case "Rprop" | "Adadelta":
            return 2
        case "Lion":
            return 1
        case _:
            return USUAL_MOMENTS + bool(group.get("amsgrad"))
