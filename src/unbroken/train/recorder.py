"""Writing finished steps down: in the run's record, in the log, against what an interrupted session had recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from importlib.util import find_spec
from typing import Any, TypeVar

from unbroken.config import Effect
from unbroken.errors import Refused
from unbroken.fields import numbers_of
from unbroken.journal import Event, Samples, evaluated_step, is_comparable, reached, read_events, steps_after, values_of
from unbroken.launch import Job
from unbroken.run import OpenRun
from unbroken.run.layout import own
from unbroken.train import cadence
from unbroken.train.console import SessionLog, StepReport
from unbroken.train.curves import Curves
from unbroken.train.hparams import RunSettings, setting_text, settings_of
from unbroken.train.pace import Pace, Timing
from unbroken.train.progress import Progress
from unbroken.train.replay import Replay

Value = TypeVar("Value", float, bytes)


class Recorder:
    """The record of one session's steps; every `log_every`-th is logged."""

    def __init__(
        self,
        run: OpenRun,
        job: Job,
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
        self._pictures: Mapping[str, bytes] = {}
        self._timing = Timing(step_s=0.0, data_s=0.0)
        self._path = own(run.directory) / "metrics.jsonl"
        before = reached(self._path)
        if before > after.step:
            run.steps.write_rewound(after.step, before=before)
        layout = run.files.layout
        self._draws = find_spec("tensorboard") is not None
        if not self._draws:
            log.say("no curves for TensorBoard are written: it is not installed (pip install 'unbroken[report]')")
        self._curves = self._open_over_steps(layout.curves, after, _settings(run, job))
        # Over epochs where they have a folder of their own, else among the others over steps.
        again = after.ends_epoch and after.evaluated_step < after.step  # a kill may have come after its curve
        self._evaluations = self._open(layout.evaluation_curves, after.epoch - again)

    def _open(self, folder: str, after: int, settings: RunSettings | None = None) -> Curves | None:
        files = self._run.files
        if not folder or not self._draws:
            return None
        place = self._run.directory / folder
        return Curves(files.disk, place, files.clock, session=files.session, after=after, settings=settings)

    def _open_over_steps(self, folder: str, after: Progress, settings: RunSettings) -> Curves | None:
        """Where a kill came between an evaluation and its save, it is done again: what is shown of it goes first.

        Readers drop whole steps, so the step itself is shown again, from its record.
        """
        again = evaluated_step(self._path, after.step) if after.evaluated_step < after.step else None
        curves = self._open(folder, after.step - (again is not None), settings)
        if curves is not None and again is not None:
            curves.add(after.step, self._shown(_values(again)), wall_time_s=self._now_s())
        return curves

    def expect_again(self, step: int, *, same_streams: bool) -> None:
        """Compare the steps after `step` that an interrupted session had already done, when they come again.

        Not where they drew from other random streams.
        """
        recorded = steps_after(self._path, step)
        sessions = comparable_sessions(read_events(own(self._run.directory) / "journal.jsonl"))
        same = {
            number: record
            for number, record in recorded.items()
            if same_streams and is_comparable(record) and record["session"] in sessions
        }
        self._replay = Replay(same)
        if recorded:
            last = max(recorded)
            one = last == step + 1
            lost = f"step {last} was" if one else f"steps {step + 1}-{last} were"
            again = "it is done again and compared" if one else "they are done again and compared"
            changed = "the config changed" if same_streams else "they drew from other random streams"
            what = again if same else f"{changed}, so there is nothing to compare with"
            self._log.say(f"{lost} done after the last save and lost: {what}")

    def step_ended(self) -> float:
        """The last step has ended, whatever of its body follows; returns the seconds that it took."""
        self._timing = self._pace.step_ended()
        return self._pace.last_step_s

    def record(
        self,
        progress: Progress,
        samples: Samples,
        values: Mapping[str, float],
        *,
        weights: int | None,
        total: int | None,
    ) -> None:
        """Write one finished step down, with the probe of the weights; RunHeld where the run is not ours any more."""
        self._run.files.lock.require()
        step, epoch = progress.step, progress.epoch_of_last_sample
        record = self._run.steps.write_step(step, epoch=epoch, samples=samples, values=values, weights=weights)
        if self._curves is not None:
            self._curves.add(step, self._shown(values), wall_time_s=self._now_s())
        words = self._replay.compare(step, record)
        if words is not None:
            self._run.journal.write("replayed", step=step, verdict=words)
            self._log.say(words)
        report = StepReport(
            step=step,
            total=total,
            epoch=epoch,
            values=values,
            step_s=self._timing.step_s,
            data_s=self._timing.data_s,
            eta_s=self._timing.step_s * (total - step) if total is not None else None,
            elapsed_s=self._pace.elapsed_s,
            due=cadence.due(step, every=self._log_every, total=total),
        )
        self._log.step(report)

    def record_evaluation(self, progress: Progress, metrics: Mapping[str, float]) -> None:
        """Write down what the weights after the last step were found to be worth."""
        self._run.files.lock.require()
        self._run.steps.write_evaluation(progress.step, metrics)
        self._log.evaluation(progress.step, metrics)
        if self._evaluations is not None:
            self._evaluations.add(progress.epoch, metrics, wall_time_s=self._now_s())
        elif self._curves is not None:
            self._curves.add(progress.step, _below("val", metrics), wall_time_s=self._now_s())
        if self._curves is not None and progress.best is not None:
            best = {f"best/{progress.best.metric}": progress.best.value}
            self._curves.add(progress.step, best, wall_time_s=self._now_s())
        if self._curves is not None and self._pictures:
            self._curves.add(progress.step, _below("predictions", self._pictures), wall_time_s=self._now_s())
        self._pictures = {}

    def show_pictures(self, pictures: Mapping[str, bytes]) -> None:
        """Let TensorBoard show pictures (PNG by name) with the evaluation that is recorded next, and saved with it."""
        self._pictures = pictures

    def _now_s(self) -> float:
        return self._run.files.clock.now().timestamp()

    def sync(self) -> None:
        """Bring the curves to disk: up to a checkpoint, no point of them is ever lost."""
        for curves in (self._curves, self._evaluations):
            if curves is not None:
                curves.flush()

    def finish(self) -> None:
        """Show that the run is finished; a disk that refuses is said when the curves are closed."""
        if self._curves is not None:
            with suppress(Refused):
                self._curves.finish()

    def close(self) -> None:
        """Say how far the comparison came, if the session ends before it is over; close the curves."""
        if words := self._replay.cut_short():
            self._log.say(words)
        for curves in (self._curves, self._evaluations):
            if curves is not None:
                curves.close()


def comparable_sessions(events: Sequence[Event]) -> set[str]:
    """The earlier sessions whose steps must come out the same: back to the last one that changed what is computed."""
    found: set[str] = set()
    begun = [event for event in events if event.get("event") == "session"]
    for later, earlier in zip(reversed(begun), reversed(begun[:-1])):
        if any(change.get("effect") != Effect.FREE for change in later.get("plan", {}).get("changes", ())):
            break
        found.add(str(earlier.get("session")))
    return found


def under_train(values: Mapping[str, float]) -> Mapping[str, float]:
    """What TensorBoard shows of a step's values where nothing else is wanted: all of them, below `train/`."""
    return _below("train", values)


def _below(group: str, values: Mapping[str, Value]) -> dict[str, Value]:
    """TensorBoard groups its charts by what stands before a slash; a name that has one stays."""
    return {name if "/" in name else f"{group}/{name}": value for name, value in values.items()}


def _values(record: Mapping[str, Any]) -> dict[str, float]:
    """The values of a step's record; NaN and infinity stand there as text."""
    return numbers_of(values_of(record))


def _settings(run: OpenRun, job: Job) -> RunSettings:
    """The run's row in the HParams tab; two runs of one tag stay two."""
    begun = run.files.clock.now()
    with suppress(ValueError):
        begun = datetime.fromisoformat(run.record.created)
    return RunSettings(
        group=f"{setting_text(run.record.tag)} ({run.record.id[:6]})",
        begun_s=begun.timestamp(),
        values=settings_of(job.config, job.effects, chosen=job.short_names),
    )
