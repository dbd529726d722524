"""Pruning a run: its folder looked at, what must stay verified, and decided; then carried out under the run's lock.

What goes is looked at again once the lock is ours, and goes file by file, the oldest first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from unbroken.checkpoint import NEVER_FEWER_THAN
from unbroken.checkpoint.removal import GOING_SUFFIX, finish_removal, leftovers, let_go
from unbroken.checkpoint.retention import Kind, Policy, RetentionDecision, StoredFile, retain
from unbroken.checkpoint.sharded import SUFFIX, size_of
from unbroken.checkpoint.structure import read_structure
from unbroken.clock import Clock
from unbroken.errors import Refused
from unbroken.journal import NO_SESSION, Journal
from unbroken.run.candidates import Candidate, confirm, furthest_first
from unbroken.run.folder import require_inside
from unbroken.run.layout import SUFFIXES, Layout, Part, manifests, own
from unbroken.run.record import read_pins
from unbroken.run.survey import Survey, require_reachable, survey_of
from unbroken.run.view import RunView
from unbroken.storage import Disk, durable_folder, explained, point_to
from unbroken.storage.lock import RunLock, held_error
from unbroken.storage.moved import looked_again, undisturbed


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """The decision about each file of a run, with the files' sizes, and what an earlier removal left behind."""

    directory: Path
    layout: Layout
    decisions: tuple[RetentionDecision, ...]
    sizes: Mapping[str, int]
    sound: int  # verified states that stay
    leftovers: tuple[str, ...] = ()

    @property
    def going(self) -> tuple[RetentionDecision, ...]:
        """What goes, the oldest first."""
        return tuple(decision for decision in reversed(self.decisions) if not decision.keep)

    @property
    def staying(self) -> tuple[RetentionDecision, ...]:
        """What stays, the furthest first."""
        return tuple(decision for decision in self.decisions if decision.keep)

    @property
    def ends_removals(self) -> bool:
        """Whether removals that were cut off may be ended: with fewer states, what they left may still be needed."""
        return self.sound >= NEVER_FEWER_THAN

    @property
    def room_bytes(self) -> int:
        """How much room it makes."""
        ended = [name + GOING_SUFFIX for name in self.leftovers] if self.ends_removals else []
        return sum(self.sizes[name] for name in (*(item.name for item in self.going), *ended))


def plan_pruning(directory: Path, policy: Policy, *, own_lock: bool = False, verify: bool = True) -> Pruning:
    """Decide about every file of a run; RunHeld while another process works on it.

    Every state that stays is verified byte by byte, and what is found damaged changes the decision; what goes is not
    read. The two furthest states always stay, so whatever goes has two newer verified ones. Without `verify` this is
    only a guess at whether anything will go.
    """
    return looked_again(directory, lambda: _plan_pruning(directory, policy, own_lock=own_lock, verify=verify))


def _plan_pruning(directory: Path, policy: Policy, *, own_lock: bool, verify: bool) -> Pruning:
    view = RunView(directory, is_copy=own_lock)
    layout, facts = view.require_layout(), survey_of(view)
    _require_at_rest(facts)
    folder, pinned = view.checkpoints, set(view.pins)
    policy = replace(policy, by_epoch="{epoch}" in layout.checkpoint_name)
    items = {item.name: item for item in facts.candidates}

    while True:
        best = _best_of(facts)
        stored = [_stored(item, facts, layout, best) for item in sorted(items.values(), key=furthest_first)]
        decisions = retain(stored, policy, pinned=pinned)
        counted = {item.name for item in stored if item.kind in ("state", "weights")}
        unread = [
            item.name
            for item in decisions
            if item.keep and item.name in counted and items[item.name].state == "unchecked"
        ]
        if not unread or not verify:
            break
        items |= {name: confirm(items[name], layout) for name in unread}
        facts = replace(facts, candidates=tuple(sorted(items.values(), key=furthest_first)))
    staying = {item.name for item in decisions if item.keep and item.rule != "copy"}
    return Pruning(
        directory=directory,
        layout=layout,
        decisions=decisions,
        sizes={
            path.name: undisturbed(path, partial(size_of, path))
            for suffix in SUFFIXES
            for path in folder.glob(f"*{suffix}*")
            if not path.is_symlink()
        },
        sound=sum(item.kind == "state" and item.verified and item.name in staying for item in stored),
        leftovers=tuple(leftovers(folder, lambda name: layout.part_of(name)[0] != "")),
    )


def _require_at_rest(facts: Survey) -> None:
    require_reachable(facts.directory, facts.unreachable)
    if facts.held:
        raise held_error(own(facts.directory))
    if facts.restoring is not None:
        do = f"End it first: unbroken restore {facts.directory} {facts.restoring.name}"
        raise Refused(facts.directory, f"bringing {facts.restoring.name} back was cut off", do=do)
    if facts.archiving:
        what = "a --fresh was cut off while it moved the old history into archive/"
        raise Refused(facts.directory, what, do="Launch the training again: it moves the rest.")


def _stored(item: Candidate, facts: Survey, layout: Layout, best: tuple[int, str] | None) -> StoredFile:
    part, metric = layout.part_of(item.name)
    sharded = item.path.suffix == SUFFIX
    named_for = layout.checkpoint(step=item.step, epoch=item.epoch or 0, milestone=True, sharded=sharded)
    kind = _kind(item, part, facts, named_for=named_for)
    return StoredFile(
        name=item.name,
        step=item.step,
        verified=item.state in ("good", "unchecked"),  # one that stays is read before that counts
        kind=kind,
        epoch=item.epoch,
        save=_save(item),
        rolling=part == "rolling",
        metric=metric,
        best=best[1] if best is not None and kind in ("state", "passed") and item.step == best[0] else "",
        trouble=item.reason,
    )


def _kind(item: Candidate, part: Part, facts: Survey, *, named_for: str) -> Kind:
    """What a file is to this run, by its name and by what it says of itself; `named_for` is what it would be called.

    A link is the user's: what it leads to lies on another disk, perhaps for other runs too, and may go unseen.
    """
    if item.path.is_symlink():
        return "yours"
    if not part or item.kind == "unknown":
        return "damaged" if part and item.state == "damaged" else "yours"
    if item.state in ("damaged", "newer"):
        return "damaged" if item.state == "damaged" else "newer"
    foreign = item.kind.startswith("foreign")
    if facts.record is not None and not foreign and item.run != facts.record.id:
        return "other run"
    if part == "weights":  # MMEngine's best files hold a whole state; under such a name it is not counted on
        return "weights" if foreign or item.kind == "weights" else "yours"
    if not item.resumable or (part == "checkpoint" and item.name != named_for):  # the latter: renamed by hand
        return "yours"
    return "state" if facts.owns(item) else "passed"


def _save(item: Candidate) -> str:
    """Which save a file holds: by itself, by its manifest; a program without such names has one per step."""
    if item.kind.startswith("foreign"):
        return f"{item.kind} {item.step}"
    return str(item.inside.get("save", "") or (item.manifest.save if item.manifest else ""))


def _best_of(facts: Survey) -> tuple[int, str] | None:
    """The step of the best evaluation, and its score, as the furthest sound state remembers it."""
    newest = facts.newest_good
    if newest is None:
        return None
    best = newest.inside.get("best")
    if isinstance(best, Mapping) and isinstance(best.get("step"), int):
        return best["step"], f"{best.get('metric')} {_number(best.get('value'))}"
    return _best_of_mmengine(newest) if newest.format_name.startswith("MMEngine") else None


def _best_of_mmengine(newest: Candidate) -> tuple[int, str] | None:
    """MMEngine remembers the path of its best file, such as `work_dirs/x/best_mIoU_iter_10.pth`, and the score."""
    tree = read_structure(newest.path).tree
    for key in ("message_hub", "runtime_info"):
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    facts: Mapping[str, Any] = tree if isinstance(tree, Mapping) else {}
    found = re.search(r"best_(.+)_(?:iter|epoch)_(\d+)\.pth$", str(facts.get("best_ckpt", "")))
    return (int(found[2]), f"{found[1]} {_number(facts.get('best_score'))}") if found else None


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


# -- carrying it out -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """A pruning that was carried out; `spared` are files that were pinned while it was at work."""

    plan: Pruning
    spared: tuple[str, ...] = ()

    @property
    def gone(self) -> tuple[RetentionDecision, ...]:
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
