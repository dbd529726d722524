"""Writing finished steps down: in the run's record, in the log, against what an interrupted session had recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from unbroken.config import Effect
from unbroken.journal import read_events, steps_after
from unbroken.run import OpenRun
from unbroken.run.layout import own
from unbroken.train import cadence
from unbroken.train.console import SessionLog, StepReport
from unbroken.train.curves import Curves
from unbroken.train.pace import Pace
from unbroken.train.progress import Progress
from unbroken.train.replay import Replay


class Recorder:
    """The record of one session's steps; every `log_every`-th is logged."""

    def __init__(
        self,
        run: OpenRun,
        log: SessionLog,
        pace: Pace,
        *,
        log_every: int,
        after: Progress,
        curves: Callable[[Mapping[str, float]], Mapping[str, float]],
    ) -> None:
        self._run, self._log, self._pace, self._log_every = run, log, pace, log_every
        self._replay = Replay({})
        self._shown = curves
        layout = run.files.layout
        self._curves = self._open(layout.curves, after.step)
        # Over epochs where they have a folder of their own, else among the others over steps.
        again = after.ends_epoch and after.evaluated_step < after.step  # a kill may have come after its curve
        self._evaluations = self._open(layout.evaluation_curves, after.epoch - again)

    def _open(self, folder: str, after: int) -> Curves | None:
        files = self._run.files
        if not folder:
            return None
        return Curves(files.disk, self._run.directory / folder, files.clock, session=files.session, after=after)

    def expect_again(self, step: int) -> None:
        """Compare the steps after `step` that an interrupted session had already done, when they come again."""
        recorded = steps_after(own(self._run.directory) / "metrics.jsonl", step)
        sessions = comparable_sessions(read_events(own(self._run.directory) / "journal.jsonl"))
        same = {number: record for number, record in recorded.items() if record.get("session") in sessions}
        self._replay = Replay(same)
        if recorded:
            last = max(recorded)
            one = last == step + 1
            lost = f"step {last} was" if one else f"steps {step + 1}-{last} were"
            again = "it is done again and compared" if one else "they are done again and compared"
            what = again if same else "the config changed, so there is nothing to compare with"
            self._log.say(f"{lost} done after the last save and lost: {what}")

    def record(self, progress: Progress, samples: list[int], values: Mapping[str, float], *, total: int | None) -> None:
        """Write one finished step down."""
        step, epoch = progress.step, progress.epoch_of_last_sample
        self._run.steps.write_step(step, epoch=epoch, samples=samples, values=values)
        if self._curves is not None:
            self._curves.add(step, self._shown(values), wall_time_s=self._now_s())
        words = self._replay.compare(step, samples=samples, loss=values.get("loss"))
        if words is not None:
            self._run.journal.write("replayed", step=step, verdict=words)
            self._log.say(words)
        timing = self._pace.step_ended()
        report = StepReport(
            step=step,
            total=total,
            epoch=epoch,
            values=values,
            step_s=timing.step_s,
            data_s=timing.data_s,
            eta_s=timing.step_s * (total - step) if total is not None else None,
            elapsed_s=self._pace.elapsed_s,
            due=cadence.due(step, every=self._log_every, total=total),
        )
        self._log.step(report)

    def record_evaluation(self, progress: Progress, metrics: Mapping[str, float]) -> None:
        """Write down what the weights after the last step were found to be worth."""
        self._run.steps.write_evaluation(progress.step, metrics)
        self._log.evaluation(progress.step, metrics)
        if self._evaluations is not None:
            self._evaluations.add(progress.epoch, metrics, wall_time_s=self._now_s())
        elif self._curves is not None:
            self._curves.add(progress.step, metrics, wall_time_s=self._now_s())

    def _now_s(self) -> float:
        return self._run.files.clock.now().timestamp()

    def sync(self) -> None:
        """Bring the curves to disk: up to a checkpoint, no point of them is ever lost."""
        for curves in (self._curves, self._evaluations):
            if curves is not None:
                curves.flush()

    def close(self) -> None:
        """Say how far the comparison came, if the session ends before it is over; close the curves."""
        if words := self._replay.cut_short():
            self._log.say(words)
        for curves in (self._curves, self._evaluations):
            if curves is not None:
                curves.close()


def comparable_sessions(events: Sequence[Mapping[str, Any]]) -> set[str]:
    """The earlier sessions whose steps must come out the same: back to the last one that changed what is computed."""
    found: set[str] = set()
    begun = [event for event in events if event.get("event") == "session"]
    for later, earlier in zip(reversed(begun), reversed(begun[:-1])):
        if any(change.get("effect") != Effect.FREE for change in later.get("plan", {}).get("changes", ())):
            break
        found.add(str(earlier.get("session")))
    return found
