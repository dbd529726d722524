"""Writing checkpoints of what is tracked, and remembering when that was last done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.optim import Optimizer

from unbroken.checkpoint.manifest import SaveFacts
from unbroken.launch import Job
from unbroken.run import OpenRun
from unbroken.storage import WritableFile
from unbroken.train import cadence, parts
from unbroken.train.contents import compose, compose_weights, stamp
from unbroken.train.progress import Best, Progress
from unbroken.train.rng import Streams
from unbroken.train.serialise import write_tree

Extra = Callable[[Progress], Mapping[str, Any]]


class Saver:
    """The save side of one session; `every` counts steps, `every_s` seconds, None means never for that reason."""

    def __init__(
        self, job: Job, run: OpenRun, tracked: Mapping[str, Any], *, every: int | None, every_s: float | None
    ) -> None:
        self._job, self._run, self._tracked = job, run, tracked
        self._every, self._every_s = every, every_s
        self._saved_at_s = run.files.clock.monotonic_s()
        self.saved_step: int | None = None  # the step whose present state is on disk

    def due(self, step: int, *, total: int | None) -> bool:
        """Whether the state after `step` should be saved now."""
        elapsed_s = self._run.files.clock.monotonic_s() - self._saved_at_s
        by_time = self._every_s is not None and elapsed_s >= self._every_s
        return by_time or cadence.due(step, every=self._every, total=total)

    def save(self, progress: Progress, streams: Streams, *, extra: Extra, total: int | None) -> str:
        """Write a checkpoint; returns what to say about it."""
        states = {name: parts.state_of(part) for name, part in self._tracked.items()}
        lr, layout, record = current_lr(self._tracked), self._job.layout, self._run.record

        def fill(file: WritableFile, facts: SaveFacts) -> None:
            stamped = stamp(self._job, record, facts, progress, lr=lr, total=total)
            write_tree(file, compose(layout, states, stamped, streams=streams, extra=extra(progress)))

        manifest = self._run.save_checkpoint(progress.step, progress.epoch, fill)
        again, self.saved_step = self.saved_step == progress.step, progress.step
        self._saved_at_s = self._run.files.clock.monotonic_s()
        if again:
            return f"{manifest.file} now holds its evaluation"
        return f"Saving checkpoint at {progress.step} iterations: {manifest.file}"

    def save_best(self, progress: Progress, best: Best, *, larger: bool, extra: Extra, total: int | None) -> str:
        """Keep the model's weights as the best so far; returns what to say about it."""
        model = self._tracked.get("model")
        if model is None:
            return f"{best.value:.4f} {best.metric} is the best so far (no part called `model` to keep)"
        state, layout, record = parts.state_of(model), self._job.layout, self._run.record

        def fill(file: WritableFile, facts: SaveFacts) -> None:
            stamped = stamp(self._job, record, facts, progress, lr=None, total=total)
            write_tree(file, compose_weights(layout, state, stamped, extra=extra(progress)))

        name = self._run.save_best(
            progress.step, progress.epoch, fill, metric=best.metric, value=best.value, larger=larger
        )
        if name is None:
            return f"{best.value:.4f} {best.metric} does not beat the best file that is already here: that one is kept"
        return f"The best checkpoint with {best.value:.4f} {best.metric} at {best.step} iter is saved to {name}."


def current_lr(tracked: Mapping[str, Any]) -> float | None:
    """The learning rate of the first parameter group of the first tracked optimizer."""
    optimizer = next((part for part in tracked.values() if isinstance(part, Optimizer)), None)
    return float(optimizer.param_groups[0]["lr"]) if optimizer is not None else None
