"""Which checkpoints may go: a pure decision with a reason for each file.

The rule that no setting can switch off: nothing is removed unless two newer *verified* checkpoints are on disk.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

NEVER_FEWER_THAN = 2


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One checkpoint on disk."""

    name: str
    step: int
    verified: bool
    rolling: bool = False  # overwritten by later saves: it takes no place among the last ones


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What happens to one file, and why."""

    name: str
    keep: bool
    reason: str


def retain(stored: Collection[Stored], *, keep_last: int | None, pinned: Collection[str] = ()) -> tuple[Decision, ...]:
    """Decide for every checkpoint, newest first; `keep_last` None keeps all."""
    ordered = sorted(stored, key=lambda item: item.step, reverse=True)
    return tuple(
        _decide(item, ordered[:position], keep_last=keep_last, pinned=pinned) for position, item in enumerate(ordered)
    )


def _decide(item: Stored, newer: list[Stored], *, keep_last: int | None, pinned: Collection[str]) -> Decision:
    sound = sum(other.verified for other in newer)
    counted = [other for other in newer if not other.rolling]
    if keep_last is None:
        return Decision(name=item.name, keep=True, reason="all checkpoints are kept")
    if item.rolling:
        return Decision(name=item.name, keep=True, reason="the next save under this name replaces it")
    if item.name in pinned:
        return Decision(name=item.name, keep=True, reason="pinned")
    if len(counted) < keep_last:
        return Decision(name=item.name, keep=True, reason=f"among the last {keep_last}")
    if sound < NEVER_FEWER_THAN:
        return Decision(
            name=item.name,
            keep=True,
            reason=f"only {sound} newer verified, {NEVER_FEWER_THAN} are needed before one may go",
        )
    return Decision(name=item.name, keep=False, reason=f"{len(newer)} newer, {sound} of them verified")
