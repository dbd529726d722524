"""Which samples each epoch used: a fold over the steps of the final history that holds one epoch at a time.

Where a step holds the end of one epoch and the beginning of the next, the place between them is where samples begin
to come that the epoch has had already; of several such places, the one that the size of the data set asks for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from unbroken.quantities import counted, some_of
from unbroken.report.findings import SHOWN, Findings
from unbroken.run.view import METRICS

NONE: Set[int] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """How often the samples of one epoch were used; the first is number 0, as in the records."""

    number: int
    size: int
    once: int
    twice: tuple[int, ...]  # or more often
    never: tuple[int, ...]
    excused: int  # left out because they cannot be read, as the journal says
    foreign: tuple[int, ...]  # numbers that no sample of the data set has
    longest_step: int
    begun_before: bool  # its beginning is not in these records
    whole: bool  # it was gone through to its end

    @property
    def exact(self) -> bool:
        """Whether each sample was used once, none twice and none never."""
        return self.whole and not (self.twice or self.never or self.foreign or self.begun_before)


class EpochFold:
    """Takes the steps of the final history in their order."""

    def __init__(self, findings: Findings, excused: Mapping[int, Set[int]], cut: Set[int]) -> None:
        self._findings, self._excused, self._cut = findings, excused, cut
        self.closed: list[Epoch] = []
        self.exact = 0
        self.used = 0  # samples in all
        self.largest = -1
        self._size = 0
        self._number = 0
        self._ids: list[int] = []
        self._marks: list[tuple[int, int]] = []  # (step, samples of it) of the epoch in progress
        self._placed = 0  # samples of this epoch whose steps say where they stand, and that follow each other
        self._unrecorded = 0  # samples of this epoch that steps without a record must have used
        self._offset = 0  # samples of this epoch that were used before the records begin
        self._begun_before = self._relabel = False
        self._straddles: bool | None = None

    # -- where it stands ---------------------------------------------------------------------------------------------

    def begin(self, *, size: int, position: int | None) -> None:
        """Begin with the position of the first session; None when only the records' own epochs say where it is."""
        self._size = size
        if position is None:
            self._relabel = self._begun_before = True
        elif size:
            self._number, self._offset = divmod(position, size)
            self._begun_before = self._offset > 0

    def resize(self, size: int) -> None:
        """Another session has another data set: what was begun is not continued, the next epoch begins."""
        if size == self._size or not size:
            return
        if self._size:
            self._findings.note(f"the data set had {self._size} samples up to epoch {self._number + 1}, then {size}")
        self._close(whole=self._room() <= 0)
        self._size, self._relabel = size, True

    def mismatch(self, position: int) -> tuple[int, int] | None:
        """The samples that a checkpoint counted in this epoch and those that are recorded, if they differ."""
        if not self._size or self._relabel or self._unrecorded or self._excused.get(self._number):
            return None
        used, have = position % self._size, (len(self._ids) + self._placed + self._offset)
        if used == 0 or have == used or self._begun_before:
            return None
        return used, have

    # -- steps -------------------------------------------------------------------------------------------------------

    def take(self, step: int, epoch: int, samples: list[int]) -> None:
        """One step: `epoch` is that of its last sample."""
        self.used += len(samples)
        if self._relabel:
            self._relabel = False
            self._number = epoch
        if epoch < self._number:
            words = f"step {step} is recorded in epoch {epoch + 1}, but epoch {self._number + 1} had begun"
            self._findings.add(METRICS, words, step=step)
            return
        while self._number < epoch:
            samples = self._across(step, epoch, samples)
        self._ids += samples
        self._marks.append((step, len(samples)))

    def take_placed(self, step: int, first: int, count: int) -> None:
        """One step whose samples are those at `count` places of the order, from position `first` on."""
        self.used += count
        if not self._size:
            return
        number, begun = divmod(first, self._size)
        if self._relabel:
            self._relabel, self._number = False, number
        if number < self._number:
            words = f"step {step} begins at position {first}, but epoch {self._number + 1} had begun"
            self._findings.add(METRICS, words, step=step)
            return
        while self._number < number:
            self._close(whole=True)
        known = len(self._ids) + self._placed + self._offset
        if begun != known and not (self._begun_before or self._unrecorded):
            words = f"step {step} begins after {begun} samples of epoch {number + 1}, but {known} were used"
            self._findings.add(METRICS, words, step=step)
        while begun + count > self._size:  # it goes on in the next epoch
            self._place(step, begun, self._size - begun)
            self._close(whole=True)
            begun, count = 0, begun + count - self._size
        self._place(step, begun, count)

    def _place(self, step: int, begun: int, count: int) -> None:
        self._placed = begun + count - len(self._ids) - self._offset
        self._marks.append((step, count))

    def skip(self, steps: int) -> None:
        """Steps without a record used samples too: as many as the step before them."""
        if not self._size:
            return
        lost = steps * (self._marks[-1][1] if self._marks else 0)
        self._unrecorded += lost
        if self._room() > -self._size:
            return  # the next record says in which epoch they ended
        self._close(whole=False)
        self._relabel = self._begun_before = True

    def finish(self) -> None:
        """Close the epoch in progress and judge all of them."""
        if self._ids or self._placed:
            self._close(whole=self._room() <= 0 or self._ends_as_others())
        usual = self._usually_left_out()
        for epoch in self.closed:
            self._judge(epoch, usual)

    def _across(self, step: int, epoch: int, samples: list[int]) -> list[int]:
        """Give this epoch its part of a step that ends in a later one; returns the rest."""
        room = self._room()
        place = 0 if self._number in self._cut else self._boundary(samples, room)
        if place:
            self._ids += samples[:place]
            self._marks.append((step, place))
        beyond = min(max(-room, 0), self._unrecorded) if self._straddles is not False else 0
        self._close(whole=self._number not in self._cut)
        self._unrecorded = beyond
        rest = samples[place:]
        if self._number < epoch and len(rest) < self._size:
            words = f"no record of epochs {self._number + 1}-{epoch}: step {step} is in epoch {epoch + 1}"
            self._findings.add(METRICS, words, step=step)
            self._number = epoch
        return rest

    def _boundary(self, samples: Sequence[int], room: int) -> int:
        """How many of these samples still belong to the epoch in progress."""
        if self._begun_before:  # what it had is not known: only the count says where it ends
            return min(max(room, 0), len(samples)) if self._offset else 0
        if self._straddles is None and room + self._unrecorded == 0 and self._last_step_is_short():
            self._straddles = False
        if self._straddles is False:
            return 0
        if self._unrecorded:  # nor here
            return min(max(room, 0), len(samples))
        place = self._most_likely(samples, room)
        if place or room > 0:
            self._straddles = place > 0
        return place

    def _most_likely(self, samples: Sequence[int], room: int) -> int:
        """The place with the most new samples before it and the most known ones behind it."""
        seen, behind = set(self._ids), Counter(samples)
        fits = sum(sample in seen for sample in samples)
        best, best_fits = 0, fits
        for place, sample in enumerate(samples, start=1):
            behind[sample] -= 1
            if sample in seen:
                fits -= 1
            else:
                seen.add(sample)
                fits += 1 + behind[sample]
            if (fits, -abs(place - room)) > (best_fits, -abs(best - room)):
                best, best_fits = place, fits
        return best

    def _last_step_is_short(self) -> bool:
        return bool(self._marks) and self._marks[-1][1] < max(count for _, count in self._marks)

    def _room(self) -> int:
        """Samples that the epoch in progress has still to come."""
        out = self._excused.get(self._number, NONE)
        excused = len(out - set(self._ids)) if out else 0
        return self._size - len(self._ids) - self._placed - excused - self._unrecorded - self._offset

    # -- epochs ------------------------------------------------------------------------------------------------------

    def _close(self, *, whole: bool) -> None:
        epoch = self._counted(whole=whole) if not self._placed else self._counted_by_place(whole=whole)
        if epoch is not None:
            self.closed.append(epoch)
        elif whole:
            self.exact += 1
        self._number += 1
        self._ids, self._marks = [], []
        self._unrecorded = self._offset = self._placed = 0
        self._begun_before = False

    def _counted_by_place(self, *, whole: bool) -> Epoch | None:
        """The count where samples are known by their place: the order gives each of them one."""
        self.largest = max(self.largest, self._size - 1)
        left = max(self._room(), 0)
        if whole and not left:
            return None
        longest = max((count for _, count in self._marks), default=0)
        if whole and not self._begun_before and not self._unrecorded:
            if left < longest:
                self._findings.note(f"epoch {self._number + 1}: {counted(left, 'sample')} left over (drop_last)")
            else:
                words = f"{counted(left, 'sample')} of epoch {self._number + 1} never used"
                self._findings.add(METRICS, words)
        return Epoch(
            number=self._number,
            size=self._size,
            once=self._size - left,
            twice=(),
            never=(),
            excused=0,
            foreign=(),
            longest_step=longest,
            begun_before=self._begun_before,
            whole=whole,
        )

    def _counted(self, *, whole: bool) -> Epoch | None:
        """The count of the epoch in progress; None if there is nothing to say of it but that it is exact."""
        ids, size = self._ids, self._size
        distinct, out = set(ids), self._excused.get(self._number, NONE)
        top = max(distinct, default=-1)
        self.largest = max(self.largest, top)
        if not size:
            return None
        if whole and not out and len(ids) == len(distinct) == size and top < size and min(distinct) >= 0:
            return None
        times = Counter(ids)
        foreign = sorted(sample for sample in distinct if not 0 <= sample < size)
        never = [sample for sample in range(size) if sample not in distinct and sample not in out] if whole else []
        twice = sorted(sample for sample, count in times.items() if count > 1)
        if twice:
            self._tell_twice(twice)
        return Epoch(
            number=self._number,
            size=size,
            once=sum(count == 1 for count in times.values()),
            twice=tuple(twice),
            never=() if self._begun_before else tuple(never),
            excused=len(out - distinct),
            foreign=tuple(foreign),
            longest_step=max((count for _, count in self._marks), default=0),
            begun_before=self._begun_before,
            whole=whole,
        )

    def _tell_twice(self, twice: Sequence[int]) -> None:
        steps: dict[int, list[int]] = {sample: [] for sample in twice}
        at = 0
        for step, count in self._marks:
            for sample in self._ids[at : at + count]:
                if sample in steps:
                    steps[sample].append(step)
            at += count
        for sample, places in steps.items():
            where = f"in epoch {self._number + 1}: steps {some_of(places, SHOWN)}"
            words = f"sample {sample} is used {len(places)} times {where}"
            self._findings.add(METRICS, words, step=places[-1], samples=(sample,))

    def _ends_as_others(self) -> bool:
        """Whether the last epoch leaves out as many samples as those before it did (`drop_last`)."""
        return self._straddles is False and any(
            epoch.whole and not epoch.twice and len(epoch.never) == self._room() for epoch in self.closed
        )

    def _usually_left_out(self) -> dict[int, int]:
        """Samples that an epoch leaves out at its end (`drop_last`), by the size of its steps: what most epochs do."""
        counts: dict[int, Counter[int]] = {}
        for epoch in self.closed:
            if epoch.whole and not epoch.begun_before and len(epoch.never) < epoch.longest_step:
                counts.setdefault(epoch.longest_step, Counter())[len(epoch.never)] += 1
        return {
            length: left
            for length, count in counts.items()
            for left, times in count.most_common(1)
            if left and 2 * times > sum(count.values()) + self.exact
        }

    def _judge(self, epoch: Epoch, usual: Mapping[int, int]) -> None:
        where = f"epoch {epoch.number + 1}"
        if epoch.foreign:
            words = (
                f"{where} uses {some_of(epoch.foreign, SHOWN)}, but the data set has {counted(epoch.size, 'sample')}"
            )
            self._findings.add(METRICS, words, samples=epoch.foreign)
        if not epoch.never:
            return
        if not epoch.twice and len(epoch.never) == usual.get(epoch.longest_step):
            self._findings.note(f"{where}: {counted(len(epoch.never), 'sample')} left over at its end (drop_last)")
            return
        words = f"{counted(len(epoch.never), 'sample')} of {where} never used: {some_of(epoch.never, SHOWN)}"
        self._findings.add(METRICS, words, samples=epoch.never)
