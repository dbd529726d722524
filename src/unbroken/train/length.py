"""How long a run is: a number of steps that is given, or that follows from epochs and the position in the data."""

from __future__ import annotations

from dataclasses import dataclass

from unbroken.train.data.feed import AnyFeed


@dataclass(kw_only=True)
class Length:
    """`steps` is None until it is known; `epochs` where it is measured in them.

    `accumulate` is how many micro-batches a step has, where the loop said so.
    """

    steps: int | None
    epochs: int | None = None
    accumulate: int | None = None
    _one_each: bool = True  # whether each step so far took one batch
    _counted: AnyFeed | None = None  # whose steps these are, as long as that is so

    def is_reached(self, step: int) -> bool:
        """Whether the last step is done, as far as that is known."""
        return self.steps is not None and step >= self.steps

    def last(self, feed: AnyFeed | None, step: int) -> int | None:
        """The last step's number, where it is certain: that of steps which may differ is, when the epochs are over."""
        if feed is None or self.epochs is None or self.accumulate is not None:
            return self.steps
        return step if feed.has_passed(self.epochs) else None

    def count(self, feed: AnyFeed, step: int, *, turns: int = 0) -> None:
        """Count the steps from the position in the data; where the loop says nothing, as long as each batch is a step.

        Of steps of several batches that nothing was said of, nobody knows how many follow.
        """
        if self.epochs is not None and self.accumulate is not None:
            left = feed.steps_left(self.epochs, accumulate=self.accumulate)
            self.steps = step + left if left is not None else None
        elif self.epochs is not None and turns and not (turns == 1 and self._counted is feed):
            self._one_each &= turns == 1
            self.steps = feed.micro_batches(self.epochs) if self._one_each else None
            self._counted = feed if self._one_each else None
