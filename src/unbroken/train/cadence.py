"""When to log, validate, save: pure functions of the progress, so that a resumed run does them at the same steps."""

from __future__ import annotations

from dataclasses import dataclass

from unbroken.train.progress import Progress


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
