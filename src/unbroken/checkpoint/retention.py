"""Which files may go: a pure decision with a reason for each file, for the training and for `unbroken prune` alike.

The rule that no setting can switch off: nothing is removed unless two newer *verified* states are on disk. A copy of a
save under another name is no second state, and what this run would not have written is the user's and stays.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from unbroken.checkpoint import NEVER_FEWER_THAN

# What a file is to this run. Only a state can be continued from; a passed one is of a program that this run took over.
Kind = Literal["state", "passed", "weights", "damaged", "newer", "other run", "yours"]
STAYS: Mapping[str, str] = {
    "yours": "not a file that this run would write: yours, and no state to count on",
    "other run": "of another run: yours, and no state to count on",
    "newer": "written by a newer version, which may know what it is worth",
}


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """One file on disk."""

    name: str
    step: int
    verified: bool
    kind: Kind = "state"
    epoch: int | None = None
    save: str = ""  # two files of one save are one state
    rolling: bool = False  # overwritten by later saves: it takes no place among the last ones
    metric: str = ""  # of a weights file
    best: str = ""  # the score, of the checkpoint whose evaluation is the best of the run
    trouble: str = ""  # what is wrong with a damaged file


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What is to stay. `keep_last` None keeps all; `keep_every` counts epochs where the names of the files do."""

    keep_last: int | None
    keep_every: int | None = None
    by_epoch: bool = False
    keep_best: bool = True
    damaged: bool = False  # whether damaged files may go


@dataclass(frozen=True, kw_only=True)
class RetentionDecision:
    """What happens to one file, by which rule, and why in words."""

    name: str
    keep: bool
    rule: str
    reason: str


def retain(
    stored: Collection[StoredFile], policy: Policy, *, pinned: Collection[str] = ()
) -> tuple[RetentionDecision, ...]:
    """Decide for every file, furthest step first; of two files of one save, the one that was given first counts."""
    ordered = sorted(stored, key=lambda item: item.step, reverse=True)
    copies = _copies(ordered)
    states = [item for item in ordered if item.kind == "state" and item.name not in copies]
    places = {item.name: place for place, item in enumerate(ordered)}
    judge = _Judge(policy=policy, pinned=pinned, copies=copies, states=states, ordered=ordered, places=places)
    return tuple(judge.decide(item) for item in ordered)


def _copies(ordered: Sequence[StoredFile]) -> dict[str, str]:
    """Files that hold a save which another one holds too, with the name of that one; a sound one counts first."""
    holders: dict[str, str] = {}
    copies = {}
    for item in sorted(ordered, key=lambda item: not item.verified):
        if item.kind == "state" and item.save:
            original = holders.setdefault(item.save, item.name)
            if original != item.name:
                copies[item.name] = original
    return copies


@dataclass(frozen=True, kw_only=True)
class _Judge:
    """The files of one run, in order, and what is wanted of them."""

    policy: Policy
    pinned: Collection[str]
    copies: Mapping[str, str]
    states: Sequence[StoredFile]
    ordered: Sequence[StoredFile]
    places: Mapping[str, int]

    def decide(self, item: StoredFile) -> RetentionDecision:
        """The first rule that keeps a file gives the reason; without one, it goes."""
        rule, reason = self._kept_as_it_is(item) or self._kept_by_the_policy(item) or ("", "")
        if rule:
            return RetentionDecision(name=item.name, keep=True, rule=rule, reason=reason)
        return RetentionDecision(name=item.name, keep=False, rule="policy", reason=self._why_it_goes(item))

    def _kept_as_it_is(self, item: StoredFile) -> tuple[str, str] | None:
        if self.policy.keep_last is None:
            return "all", "all checkpoints are kept"
        if item.kind in STAYS:
            return item.kind, STAYS[item.kind]
        if item.name in self.pinned:
            return "pinned", "pinned"
        if item.name in self.copies:
            return "copy", f"the same save as {self.copies[item.name]}: a copy is yours, and no second state"
        if item.kind == "damaged" and not self.policy.damaged:
            return "damaged", f"damaged, so no state to count on ({item.trouble}); --damaged lets it go"
        if item.rolling and item.kind != "damaged":
            return "rolling", "the next save under this name replaces it"
        return None

    def _kept_by_the_policy(self, item: StoredFile) -> tuple[str, str] | None:
        last = self.policy.keep_last or 0
        if item.kind == "weights":
            if self._newer_best(item) is None:
                return "best", f"the best weights by {item.metric}"
        elif item.kind != "damaged":
            if item.kind == "state" and sum(not other.rolling for other in self._newer(item)) < last:
                return "last", "the newest" if last == 1 else f"among the last {last}"
            if self._is_one_of_every(item):
                return "every", f"one of every {self.policy.keep_every} {'epochs' if self.policy.by_epoch else 'steps'}"
            if item.best and self.policy.keep_best:
                return "best", f"the best: {item.best}"
        return self._needed(item)

    def _needed(self, item: StoredFile) -> tuple[str, str] | None:
        """Whether there are too few verified states without this file; newer ones, where it is about a state."""
        about_time = item.kind in ("state", "passed")
        sound = sum(other.verified for other in (self._newer(item) if about_time else self.states))
        if sound >= NEVER_FEWER_THAN:
            return None
        which = "newer verified" if about_time else "verified state" + ("" if sound == 1 else "s")
        return "two states", f"only {sound} {which}, {NEVER_FEWER_THAN} are needed before one may go"

    def _newer(self, item: StoredFile) -> Sequence[StoredFile]:
        """The states before it in the order."""
        return [other for other in self.states if self.places[other.name] < self.places[item.name]]

    def _newer_best(self, item: StoredFile) -> StoredFile | None:
        """Whole weights that replaced these as the best by their metric: a worse file never does."""
        earlier = self.ordered[: self.places[item.name]]
        rivals = [other for other in earlier if other.kind == "weights" and other.metric == item.metric]
        return next((other for other in rivals if other.verified), None)

    def _is_one_of_every(self, item: StoredFile) -> bool:
        number = item.epoch if self.policy.by_epoch else item.step
        return bool(self.policy.keep_every) and number is not None and number % (self.policy.keep_every or 1) == 0

    def _why_it_goes(self, item: StoredFile) -> str:
        if item.kind == "damaged":
            return f"damaged: {item.trouble}"
        if (better := self._newer_best(item)) is not None and item.kind == "weights":
            return f"{better.name} is better"
        if item.kind == "passed":
            return f"left by another program, and {NEVER_FEWER_THAN} newer states of this run are verified"
        last = self.policy.keep_last or 0
        others = f"older than the last {max(last, NEVER_FEWER_THAN)}"
        return f"{others}, {NEVER_FEWER_THAN} newer ones are verified"
