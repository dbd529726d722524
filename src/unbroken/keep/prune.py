"""Carrying a pruning out: under the run's lock, file by file, the oldest first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unbroken.checkpoint.removal import finish_removal, let_go
from unbroken.checkpoint.retention import Decision, Policy
from unbroken.clock import Clock
from unbroken.journal import NO_SESSION, Journal
from unbroken.keep.pruning import Pruning, plan_pruning
from unbroken.run.bounds import require_inside
from unbroken.run.layout import manifests, own
from unbroken.run.pins import read_pins
from unbroken.storage import Disk, durable_folder, explained, point_to
from unbroken.storage.lock import RunLock


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """A pruning that was carried out; `spared` are files that were pinned while it was at work."""

    plan: Pruning
    spared: tuple[str, ...] = ()

    @property
    def gone(self) -> tuple[Decision, ...]:
        """What went, the oldest first."""
        return tuple(item for item in self.plan.going if item.name not in self.spared)

    @property
    def room_bytes(self) -> int:
        """How much room it made."""
        return self.plan.room_bytes - sum(self.plan.sizes[name] for name in self.spared)


def prune(directory: Path, policy: Policy, *, disk: Disk, clock: Clock) -> Pruned:
    """Remove what the policy lets go; RunHeld while a live process works on the run.

    Where nothing goes, nothing is written. The lock says afterwards, as before, who worked on the run last.
    """
    require_inside(directory)
    guess = plan_pruning(directory, policy, verify=False)
    if not guess.going and not guess.leftovers:
        plan = plan_pruning(directory, policy)
        if not plan.going:
            return Pruned(plan=plan)
    lock = RunLock(disk, own(directory), clock)
    with explained(disk, directory, "not all that was to go has gone"):
        durable_folder(disk, own(directory))
        lock.acquire("prune")
        try:
            return _carry_out(plan_pruning(directory, policy, own_lock=True), disk=disk, clock=clock)
        finally:
            lock.withdraw()


def _carry_out(plan: Pruning, *, disk: Disk, clock: Clock) -> Pruned:
    directory, spared = plan.directory, []
    folder, listed_in = plan.layout.checkpoints(directory), manifests(directory)
    journal = Journal(disk, own(directory) / "journal.jsonl", clock=clock, session=NO_SESSION)
    try:
        for name in plan.leftovers if plan.ends_removals else ():
            finish_removal(disk, folder, name, manifests=listed_in, record=journal.write)
        _point_to_what_stays(plan, disk)
        for item in plan.going:
            if item.name in read_pins(directory):
                spared.append(item.name)
                continue
            reason = f"pruned: {item.reason}"
            let_go(disk, folder, item.name, manifests=listed_in, record=journal.write, reason=reason)
    finally:
        journal.close()
    return Pruned(plan=plan, spared=tuple(spared))


def _point_to_what_stays(plan: Pruning, disk: Disk) -> None:
    """The link for people, where it leads to what goes, leads to the furthest state that stays."""
    if not plan.layout.pointer:
        return
    pointer = plan.layout.checkpoints(plan.directory) / plan.layout.pointer
    going = {item.name for item in plan.going}
    if pointer.is_symlink() and pointer.readlink().name in going:
        target = next((item.name for item in plan.staying if item.rule in ("last", "two states")), None)
        if target is not None:
            point_to(disk, pointer, target)
