"""Writing finished steps down: in the run's record, in the log, against what an interrupted session had recorded.

The last is the proof of exactness: steps that a killed session had done beyond its last save are compared when they
come again. How long steps take is told as means over the last ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from importlib.util import find_spec
from statistics import fmean
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from unbroken.clock import Clock
from unbroken.config import Effect
from unbroken.errors import Refused
from unbroken.fields import count_of, numbers_of
from unbroken.journal import (
    Event,
    Samples,
    compare_steps,
    evaluated_step,
    is_comparable,
    listed,
    reached,
    read_events,
    steps_after,
    values_of,
)
from unbroken.jsonlines import parsed_line
from unbroken.launch import Job
from unbroken.quantities import counted
from unbroken.run import OpenRun
from unbroken.run.layout import own
from unbroken.train import cadence
from unbroken.train.progress import Progress
from unbroken.train.record.console import SessionLog, StepReport
from unbroken.train.record.hparams import RunSettings, setting_text, settings_of
from unbroken.train.record.probe import crc32_of, fetch
from unbroken.train.record.tensorboard import TensorBoardCurves

Value = TypeVar("Value", float, bytes)
LONGEST_WAIT_S = 0.25  # of a step whose values lie on a device
WINDOW = 10


class EndedStep(NamedTuple):
    """What is written down of a step; the rest of its body may still add to `logged`."""

    samples: Samples
    logged: dict[str, list[Any]]
    lr: float | None  # the rate belongs to the step
    weights: Sequence[float] = ()  # of this process's part of each micro-batch

    def values(self) -> dict[str, float]:
        """What was logged, as numbers: of a value that came once in each micro-batch the mean."""
        means = {
            name: float(values[0]) if len(values) == 1 else fmean(map(float, values))
            for name, values in self.logged.items()
        }
        if self.lr is not None:
            means.setdefault("lr", self.lr)
        return means


class FinishedStep(NamedTuple):
    """A step that is to be written down."""

    ended: EndedStep
    weights: list[Any]  # what is looked at of them
    step: int
    epoch: int
    total: int | None
    step_s: float  # the mean over the last ones, and of it waiting for data
    data_s: float
    elapsed_s: float  # of the session
    at_s: float  # by the clock on the wall
    due: bool  # whether it is logged

    def rows(self) -> list[list[Any]]:
        """The lists of what may lie on a device."""
        return [self.weights, *self.ended.logged.values()]

    @property
    def is_on_device(self) -> bool:
        """Whether something does."""
        for row in (self.weights, *self.ended.logged.values()):
            for each in row:
                if isinstance(each, Tensor):
                    return True
        return False


class Recorder:
    """The record of one session's steps; every `log_every`-th is logged."""

    def __init__(
        self,
        run: OpenRun,
        job: Job,
        log: SessionLog,
        pace: StepTimer,
        *,
        log_every: int,
        after: Progress,
        curves: Callable[[Mapping[str, float]], Mapping[str, float]],
    ) -> None:
        self._run, self._log, self.pace, self._log_every = run, log, pace, log_every
        self._replay = Replay({})
        self._shown = curves
        self._pictures: Mapping[str, bytes] = {}
        self._waiting: list[FinishedStep] = []  # not written down yet
        self._opened_at_s, self._wall_until_s = 0.0, 0.0  # by the clock on the wall, and how long it is believed
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

    def _open(self, folder: str, after: int, settings: RunSettings | None = None) -> TensorBoardCurves | None:
        files = self._run.files
        if not folder or not self._draws:
            return None
        place = self._run.directory / folder
        return TensorBoardCurves(files.disk, place, files.clock, session=files.session, after=after, settings=settings)

    def _open_over_steps(self, folder: str, after: Progress, settings: RunSettings) -> TensorBoardCurves | None:
        """Where a kill came between an evaluation and its save, it is done again: what is shown of it goes first.

        Readers drop whole steps, so the step itself is shown again, from its record.
        """
        again = evaluated_step(self._path, after.step) if after.evaluated_step < after.step else None
        curves = self._open(folder, after.step - (again is not None), settings)
        if curves is not None and again is not None:
            curves.add(after.step, self._shown(_values(again)), wall_time_s=self._now_s())
        return curves

    def expect_again(self, step: int, *, same_streams: bool, exact: bool) -> None:
        """Compare the steps after `step` that an interrupted session had already done, when they come again.

        Not where they drew from other random streams. With `exact` another number of processes makes no difference.
        """
        recorded = steps_after(self._path, step)
        events = read_events(own(self._run.directory) / "journal.jsonl")
        sessions = comparable_sessions(events)
        same = {
            number: record
            for number, record in recorded.items()
            if same_streams and is_comparable(record) and record["session"] in sessions
        }
        self._replay = Replay(same, others={} if exact else with_other_processes(events))
        if recorded:
            last = max(recorded)
            one = last == step + 1
            lost = f"step {last} was" if one else f"steps {step + 1}-{last} were"
            again = "it is done again and compared" if one else "they are done again and compared"
            changed = "the config changed" if same_streams else "they drew from other random streams"
            what = again if same else f"{changed}, so there is nothing to compare with"
            self._log.say(f"{lost} done after the last save and lost: {what}")

    def record(self, progress: Progress, ended: EndedStep, weights: list[Any], *, total: int | None) -> None:
        """Write one finished step down, with what is looked at of the weights; RunHeld where the run is another's.

        What lies on a device is not waited for: such steps are written together, with one transfer, when one of them is
        logged, before a save or an evaluation, and four times a second.
        """
        self._run.files.lock.require()
        step = progress.step
        step_s, data_s = self.pace.means()
        elapsed_s = self.pace.elapsed_s
        if elapsed_s >= self._wall_until_s:  # a moment by the clock on the wall takes as long as the rest of a point
            self._opened_at_s, self._wall_until_s = self._now_s() - elapsed_s, elapsed_s + 1.0
        finished = FinishedStep(
            ended,
            weights,
            step,
            progress.epoch_of_last_sample,
            total,
            step_s,
            data_s,
            elapsed_s,
            self._opened_at_s + elapsed_s,
            cadence.due(step, every=self._log_every, total=total),
        )
        on_device = finished.is_on_device
        if not on_device and not self._waiting:
            self._write(finished)
            return
        self._waiting.append(finished)
        if not on_device or finished.due or finished.elapsed_s - self._waiting[0].elapsed_s >= LONGEST_WAIT_S:
            self.write_waiting()

    def write_waiting(self) -> None:
        """Write the finished steps down whose values were not waited for."""
        waiting, self._waiting = self._waiting, []
        fetch([row for each in waiting for row in each.rows()])
        for each in waiting:
            self._write(each)

    def _write(self, finished: FinishedStep) -> None:
        ended, weights, step, epoch, total, step_s, data_s, elapsed_s, at_s, due = finished
        values = ended.values()
        line = self._run.steps.write_step(
            step, epoch=epoch, samples=ended.samples, values=values, weights=crc32_of(weights)
        )
        if self._curves is not None:
            self._curves.add(step, self._shown(values), wall_time_s=at_s)
        if step in self._replay.recorded and (words := self._replay.compare(step, parsed_line(line) or {})) is not None:
            self._run.journal.write("replayed", step=step, verdict=words)
            self._log.say(words)
        eta_s = step_s * (total - step) if total is not None else None
        self._log.step(
            StepReport(
                step=step,
                total=total,
                epoch=epoch,
                values=values,
                step_s=step_s,
                data_s=data_s,
                eta_s=eta_s,
                elapsed_s=elapsed_s,
                due=due,
            )
        )

    def record_evaluation(self, progress: Progress, metrics: Mapping[str, float]) -> None:
        """Write down what the weights after the last step were found to be worth."""
        self._run.files.lock.require()
        self.write_waiting()
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
        if self._run.files.lock.lost is None:
            with suppress(RuntimeError):  # a device that has failed gives nothing any more
                self.write_waiting()
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


def with_other_processes(events: Sequence[Event]) -> dict[str, int]:
    """The earlier sessions that trained on another number of processes than the last one, each with its number."""
    begun = [(str(event.get("session")), event.get("plan", {})) for event in events if event.get("event") == "session"]
    counts = {session: count_of(plan.get("processes")) or 1 for session, plan in begun}
    now = counts[begun[-1][0]] if begun else 1
    return {session: count for session, count in counts.items() if count != now}


def under_train(values: Mapping[str, float]) -> Mapping[str, float]:
    """What TensorBoard shows of a step's values where nothing else is wanted: all of them, below `train/`."""
    return {_TRAIN[name]: value for name, value in values.items()}


class _Tags(dict[str, str]):
    """The tag of each name, made once."""

    def __missing__(self, name: str) -> str:
        tag = self[name] = name if "/" in name else f"train/{name}"
        return tag


_TRAIN = _Tags()


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


class Replay:
    """Compares repeated steps with what was recorded of them; says what it found once they are all done."""

    def __init__(self, recorded: Mapping[int, Mapping[str, Any]], *, others: Mapping[str, int] | None = None) -> None:
        """`others` are sessions of another number of processes than this one, and that number."""
        self.recorded = dict(recorded)  # what an interrupted session had done, and comes again
        self._others = others or {}
        self._first = min(recorded, default=0)
        self._last = 0
        self._names: list[str] | None = None  # of what was compared in every step so far; None before the first
        self._differs = False

    def compare(self, step: int, record: Mapping[str, Any]) -> str | None:
        """Compare one step; returns a sentence when the repetition is over or differs for the first time."""
        before = self.recorded.pop(step, None)
        if before is None or self._differs:
            return None
        found = compare_steps(before, record)
        self._names = [name for name in found.names if self._names is None or name in self._names]
        self._last = step
        if found.difference:
            self._differs = True
            said = f"step {step} differs from what the interrupted session recorded: {found.difference}"
            count = self._others.get(str(before.get("session")))
            by = "" if count is None else counted(count, "process", "processes")
            return f"{said} (as it may: {by} had done it, which add up in another order)" if by else said
        return None if self.recorded else self._verdict("replayed")

    def cut_short(self) -> str | None:
        """What can be said when the session ends before the repetition is over."""
        if self._differs or self._names is None or not self.recorded:
            return None
        return self._verdict("replayed so far")

    def _verdict(self, how: str) -> str:
        steps = f"steps {self._first}-{self._last} {how}"
        if not self._names:
            return f"{steps}: the same samples; nothing else was recorded that can be compared"
        return f"{steps}: bit-identical ({listed(self._names)})"


class StepTimer:
    """Measures the steps of this session."""

    def __init__(self, clock: Clock, *, first: Callable[[], None]) -> None:
        """`first` is called when the first batch is there."""
        self._clock, self._first = clock, [first]
        self._opened_s = clock.monotonic_s()
        self._began_s: float | None = None
        self._waiting_since_s = 0.0
        self._data_s = 0.0
        self._steps_s: deque[float] = deque(maxlen=WINDOW)
        self._waits_s: deque[float] = deque(maxlen=WINDOW)

    @property
    def last_step_s(self) -> float:
        """Seconds that the last step took."""
        return self._steps_s[-1] if self._steps_s else 0.0

    def means(self) -> tuple[float, float]:
        """Seconds per step, and of it waiting for data, over the last steps; there is one."""
        count = len(self._steps_s)
        return sum(self._steps_s) / count, sum(self._waits_s) / count

    @property
    def elapsed_s(self) -> float:
        """Seconds since the session began."""
        return self._clock.monotonic_s() - self._opened_s

    def waiting(self) -> None:
        """The loop asks for a batch."""
        self._waiting_since_s = self._clock.monotonic_s()
        if self._began_s is None:
            self._began_s = self._waiting_since_s

    def loaded(self) -> None:
        """The batch is there."""
        self._data_s += self._clock.monotonic_s() - self._waiting_since_s
        if self._first:
            self._first.pop()()

    def step_ended(self) -> float:
        """A step is done; what follows until the next batch is asked for (validation, saving) is not part of it.

        Returns the seconds that it took.
        """
        now_s = self._clock.monotonic_s()
        step_s = now_s - (self._began_s if self._began_s is not None else now_s)
        self._steps_s.append(step_s)
        self._waits_s.append(self._data_s)
        self._began_s, self._data_s = None, 0.0
        return step_s
