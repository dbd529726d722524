"""When to log, validate, save: pure functions of the progress, so that a resumed run does them at the same steps."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from unbroken.launch.forecast import Kills, save_interval_s
from unbroken.launch.job import AUTO, SaveEvery
from unbroken.train.progress import Progress

REMEMBERED = 5  # costs of saves


def due(step: int, *, every: int | None, total: int | None) -> bool:
    """Whether something done every `every` steps, and once at the end, is due after `step`."""
    if step <= 0:
        return False
    return step == total or (every is not None and every > 0 and step % every == 0)


@dataclass(frozen=True, kw_only=True)
class Every:
    """Every so many steps, or at the end of every so many epochs; and at the end of the training in any case.

    Args:
        steps: Optimizer steps from one time to the next; None, and 0: not by steps.
        epochs: Epochs from one time to the next; None, and 0: not by epochs.
        each_from: Number of the epoch from whose end on every end of an epoch counts; None: no such epoch.
    Example:
        >>> from unbroken.train import Every, Progress
        >>> [step for step in range(1, 8) if Every(steps=3).due(Progress(step=step), total=7)]
        [3, 6, 7]
    """

    steps: int | None = None
    epochs: int | None = None
    each_from: int | None = None

    def due(self, progress: Progress, *, total: int | None) -> bool:
        """Tell whether it is due after the last step that was done.

        Args:
            progress: How far the run is.
            total: Steps of the whole training; None where that is not known.
        Returns:
            True where the step or the epoch counts, or the training ends.
        """
        if due(progress.step, every=self.steps, total=total):
            return True
        return (self.epochs is not None or self.each_from is not None) and self.closes(progress)

    def closes(self, progress: Progress) -> bool:
        """Tell whether an epoch that counts ends here.

        Args:
            progress: How far the run is.
        Returns:
            True only at the end of an epoch.
        """
        by_count = bool(self.epochs) and progress.epoch % (self.epochs or 1) == 0
        late = self.each_from is not None and progress.epoch >= self.each_from
        return progress.ends_epoch and (by_count or late)


class Interval:
    """The seconds from one save to the next: as asked for, or (`auto`) by what the saves of this session cost.

    What a save costs is the time for which the training waited for it, and the processor time of the thread that wrote
    it, which on a machine with few cores is the training's. `cost_s` is what an earlier session found, if one did.
    """

    def __init__(self, asked: SaveEvery, *, kills: Kills, cost_s: float | None) -> None:
        self._asked, self._kills, self._known = asked, kills, cost_s
        self._costs = deque[float](maxlen=REMEMBERED)

    def cost(self, seconds: float) -> None:
        """A save was done, and took so much from the training."""
        self._costs.append(seconds)

    @property
    def cost_s(self) -> float | None:
        """What a save costs: the mean of the last few; None where no save was measured."""
        return sum(self._costs) / len(self._costs) if self._costs else self._known

    @property
    def seconds(self) -> float | None:
        """Seconds from one save to the next; None: not for that reason."""
        if isinstance(self._asked, str):
            return save_interval_s(self.cost_s, self._kills)
        return self._asked

    def as_plain(self) -> dict[str, Any]:
        """What later sessions can learn from this one."""
        every_s = {"save_every_s": self.seconds} if self._asked == AUTO else {}
        return {"save_cost_s": self.cost_s, **every_s} if self.cost_s is not None else {}
