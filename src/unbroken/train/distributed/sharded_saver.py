"""Saving what is sharded: every process writes its part, rank 0 says when, and what became of it.

Rank 0 writes the head once the parts of all are on the medium; then the checkpoint is there. Until that is known
nobody goes on, so that all know of the same last save.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from unbroken.checkpoint.sharded import ShardFile
from unbroken.errors import Refused, UsageError
from unbroken.storage import Disk, durable_folder
from unbroken.train.distributed.sharded_files import WrittenShards, without_shards, write_shards
from unbroken.train.distributed.world import World
from unbroken.train.progress import Best, Progress
from unbroken.train.record.probe import bytes_of, crc32_of
from unbroken.train.saving.patience import mark_of
from unbroken.train.saving.saving import Extra, Saver, Value, Write
from unbroken.train.state import parts
from unbroken.train.state.placement import whole
from unbroken.train.state.tree import leaves

ALIKE = (nn.Module, Optimizer, LRScheduler, GradScaler)  # whose state is that of all processes


class ShardedSaver(Saver):
    """The save side of one process of a training whose state is sharded; every method is called by all of them."""

    sharded = True

    def __init__(self, *args: Any, world: World, **options: Any) -> None:
        super().__init__(*args, **options | {"beside": False})
        self._world, self._shards, self._written = world, dict[str, DTensor](), WrittenShards(files=(), chunks={})
        self._write_shards = self._lead
        self._asked = False  # whether the others were told to write their parts
        self._held: dict[str, int] = {}  # the CRC-32 of what the head has of each part

    def agreed(self, value: Value) -> Value:
        """What rank 0 goes by."""
        return self._world.tell(value)

    def foreseen(self) -> list[str]:
        """Rank 0 looks, and says it."""
        return super().foreseen() if self._world.leads else []

    def due(self, progress: Progress, *, total: int | None) -> bool:
        """Rank 0 decides: what is due by time is so at another moment in each process."""
        return self.agreed(super().due(progress, total=total))

    def save_best(self, progress: Progress, best: Best, *, larger: bool, extra: Extra, total: int | None) -> None:
        """One file of whole weights, written by rank 0."""
        if self._world.leads:
            super().save_best(progress, best, larger=larger, extra=extra, total=total)
        elif (model := self._tracked.get("model")) is not None:
            self._copied_again(parts.state_of(model))

    def _require_same(self) -> None:
        """Raise UsageError, in all processes, where what a part has whole is not the same: a head holds one of it."""
        for rank, there in enumerate(rows := self._world.gather_values(self._held)):
            if there != rows[0]:
                name = next(name for name in rows[0] | there if there.get(name) != rows[0].get(name))
                raise UsageError(
                    f"run.track({name}=...)",
                    f"what is not sharded of its state is other in process {rank} than in process 0, and a checkpoint "
                    "holds one of it",
                    expected="the same in all processes",
                    do="Make what an optimizer keeps of a weight by torch.zeros_like(weight), not of its local part; "
                    "give a schedule the mean over all processes (torch.distributed.all_reduce), and share buffers so "
                    "before the step ends.",
                )

    def _try(self, write: Write, progress: Progress) -> str:
        self._require_same()
        if self._world.leads:
            self._asked = False
            said = super()._try(write, progress)
            if not self._asked:
                self._world.tell(None)  # it was refused before
            self._world.tell(self.patience.refusal)
            return said
        folder = self._world.hear()
        if folder is not None:
            with suppress(OSError):  # rank 0 has met the same, and says what follows
                self._write(folder)
        refusal: Refused | None = self._world.hear()
        now_s = self._run.files.clock.monotonic_s()
        if refusal is None:
            self.patience.succeeded(mark_of(progress, now_s))
        else:
            self.patience.failed(refusal, now_s=now_s)
            self.saved_step = None
        return ""

    def _lead(self, folder: Path) -> Sequence[ShardFile]:
        durable_folder(self._run.files.disk, folder)
        self._asked = True
        return self._write(self._world.tell(folder)).files

    def _write(self, folder: Path) -> WrittenShards:
        disk = self._run.files.disk if self._world.leads else Disk()
        self._written = write_shards(self._world, disk, folder, self._shards)
        return self._written

    def _shards_said(self) -> Mapping[str, Any]:
        return self._written.entries()

    def _copied(self, live: Any, *, later: Iterable[Tensor] = ()) -> tuple[Any, None]:  # noqa: ARG002 - nothing is copied
        """What the head holds of a state; the rest is written from where it lies, while all wait."""
        self._shards.clear()
        kept = without_shards(live, "", self._shards)
        for name, part in self._tracked.items():
            if isinstance(part, ALIKE):
                state = kept["states"][name], kept["buffers"].get(name, {})
                numbers = repr([*leaves(state, int), *leaves(state, float)]).encode()
                self._held[name] = crc32_of([numbers, *map(bytes_of, leaves(state, Tensor))]) or 0
        return kept, None

    def _copied_again(self, live: Any) -> tuple[Any, None]:
        """Whole weights, as one file holds them."""
        return whole(live), None
