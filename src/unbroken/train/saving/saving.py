"""Writing checkpoints of what is tracked, one after the other, and remembering when that was last done.

A save is done at once, or beside the training, which then waits only for a copy of the state.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from unbroken.checkpoint.manifest import SaveFacts
from unbroken.checkpoint.sharded import ShardFile
from unbroken.errors import Refused
from unbroken.launch import Job
from unbroken.launch.disk import policy
from unbroken.quantities import counted
from unbroken.run import OpenRun
from unbroken.storage import WritableFile
from unbroken.train.cadence import Every, Interval
from unbroken.train.progress import Best, Progress
from unbroken.train.saving.backing_up import Backups
from unbroken.train.saving.patience import Mark, Patience, cause_of, is_of_the_disk, mark_of
from unbroken.train.saving.room import room_ahead, short_of_room
from unbroken.train.state import parts
from unbroken.train.state.contents import ExtraState, compose, compose_weights, stamp
from unbroken.train.state.gradients import GradientWatch
from unbroken.train.state.modes import Modes, buffers_of
from unbroken.train.state.module_attributes import Attributes
from unbroken.train.state.optimizer_state import parameter_names
from unbroken.train.state.serialise import write_tree
from unbroken.train.state.snapshot import NoRoom, Snapshot, Snapshots
from unbroken.train.state.tree import leaves, map_leaves
from unbroken.train.stop import Deadline

Value = TypeVar("Value")
Extra = Callable[[Progress], Mapping[str, Any]]
Write = Callable[[], str]  # does the work, returns what to say about it


class Saver:
    """The save side of one session; `every` counts steps or epochs, `interval` seconds.

    With `beside`, a save copies the state and returns, and a thread writes it; everything else about it is the same.
    `built` is what the parts were built with.
    `look` is called before the state is copied, and `before` ahead of each checkpoint: what that writes is on disk when
    the checkpoint is.
    """

    sharded = False  # whether each process has a part of the state, so that none can save it alone

    def __init__(
        self,
        job: Job,
        run: OpenRun,
        tracked: Mapping[str, Any],
        *,
        gradients: GradientWatch,
        modes: Modes,
        attributes: Attributes,
        built: Mapping[str, Any],
        every: Every,
        interval: Interval,
        beside: bool,
        look: Callable[[], None],
        before: Callable[[], None],
        deadline: Deadline,
        total: int | None = None,
    ) -> None:
        self._total, self._gradients, self._modes, self._attributes = total, gradients, modes, attributes
        self._groups = {name: len(part.param_groups) for name, part in tracked.items() if isinstance(part, Optimizer)}
        self._look, self._before, self._deadline = look, before, deadline
        self.patience = Patience(every, interval, good=Mark(step=0, epoch=0, at_s=run.files.clock.monotonic_s()))
        self.insisting = False  # at the end of a session: it is tried again whatever the patience says
        self._best_again: Callable[[], str] | None = None  # best weights that could not be written yet
        self._job, self._run, self._tracked, self._built = job, run, tracked, built
        self._every, self.interval, self._beside = every, interval, beside
        self._saved_at_s = run.files.clock.monotonic_s()
        self._write_shards: Callable[[Path], Sequence[ShardFile]] | None = None  # where some of the state is sharded
        self.writer, self._snapshots = Writer(beside=beside), Snapshots()
        self._fences: list[RemovableHandle] = []  # before the steps of optimizers whose moments an accelerator copies
        self._waits, self._notes = False, list[str]()  # whether there was no room for a copy; what is still to be said
        self.backups = Backups(run, job.backup, deadline) if job.backup is not None else None
        self.saved_step: int | None = None  # the step whose present state is on disk, or on its way there

    def foreseen(self) -> list[str]:
        """Whether there is room for what will be saved; nothing where the launch could say it already.

        It could not of a new training, whose tensors are here by now, nor of a script's, whose length is known by now.
        """
        if self._run.store.newest_bytes and not self._job.is_script:
            return []
        asked = policy(self._job, self._every.steps, self._every.epochs, self.interval.seconds)
        return room_ahead(self._job, self._tracked, asked, done=self.patience.good.step, total=self._total)

    def due(self, progress: Progress, *, total: int | None) -> bool:
        """Whether the state after the last step should be saved now."""
        every_s = self.interval.seconds
        if every_s is not None or self.patience.refusal is not None:
            now_s = self._run.files.clock.monotonic_s()
            if every_s is not None and now_s - self._saved_at_s >= every_s:
                return True
            if self.patience.try_again(progress, now_s=now_s):
                return True
        return self._every.due(progress, total=total)

    def save(self, progress: Progress, *, extra: Extra, total: int | None, then: Callable[[], None]) -> None:
        """Write a checkpoint of the present state; SaveFailed if too much would be lost by going on without it."""
        began_s = self._run.files.clock.monotonic_s()
        self.writer.wait()  # before the copy, so that there is never a second one
        self._look()
        last_try = self.agreed(self.patience.exhausted(progress, now_s=self._run.files.clock.monotonic_s()))
        attributes, learning = self._attributes.changed()
        live = {
            "states": {name: parts.state_of(part) for name, part in self._tracked.items()},
            "buffers": {name: kept for name, part in self._tracked.items() if (kept := buffers_of(part))},
            "gradients": {**self._gradients.unused()},
        }
        kept, snapshot = self._copied(live, later=self._of_optimizers(live["states"]))
        regroupings = parts.regroupings_of(self._tracked)
        beside_states = ExtraState(
            buffers=kept["buffers"],
            gradients=kept["gradients"],
            modes=self._modes.switches(),
            attributes=attributes,
            learning=learning,
            parameter_names=parameter_names(self._tracked),
            built_with=self._built,
        )
        meta, lr = extra(progress), current_lr(self._tracked)
        again, now = self.saved_step == progress.step, replace(progress)
        milestone = now.ends_epoch and (now.step == total or not self._every.epochs or self._every.closes(now))

        def fill(file: WritableFile, facts: SaveFacts) -> None:
            stamped = stamp(self._job, self._run.record, facts, now, lr=lr, total=total)
            stamped |= self._shards_said()
            states = kept["states"]
            tree = compose(self._job.layout, states, stamped, meta=meta, regroupings=regroupings, extra=beside_states)
            write_tree(file, tree, snapshot)

        def write() -> str:
            with self._deadline.timing("save"):
                self._before()
                shards = self._write_shards
                manifest = self._run.save_checkpoint(
                    now.step, now.epoch, fill, milestone=milestone, write_shards=shards
                )
            then()
            if again:
                return f"{manifest.file} now holds its evaluation"
            return f"Saving checkpoint at {now.step} iterations: {manifest.file}"

        self.saved_step = progress.step  # first: a failure takes it back
        self._saved_at_s = self._run.files.clock.monotonic_s()
        waited_s = self._saved_at_s - began_s

        def attempt() -> str:
            spent_s = time.thread_time if snapshot is not None else self._run.files.clock.monotonic_s
            before_s = spent_s()
            said = self._try(write, now)
            self.interval.cost(waited_s + spent_s() - before_s)
            return said

        self.writer.submit(attempt, at_once=snapshot is None)
        if last_try and not self.insisting:
            self.writer.wait()
            self.require_saved(now.step)

    def require_saved(self, step: int) -> None:
        """Raise SaveFailed if the last save, of the state after `step`, failed."""
        if self.patience.failing:
            raise self.patience.error(self._run.directory, step)

    def _try(self, write: Callable[[], str], progress: Progress) -> str:
        """One attempt; a disk that refuses it may let the next one pass, so that is said and the training goes on."""
        said, self._notes = [*self._notes, short_of_room(self._run) or "", *self._grown()], []
        try:
            said += [self.write_best_again(), write()]
            self._run.journal.lines.require_written()
        except Refused as refusal:
            if not is_of_the_disk(refusal):
                raise
            said.append(self._failed(refusal, progress))
        else:
            self.patience.succeeded(mark_of(progress, self._run.files.clock.monotonic_s()))
            if self.backups is not None:
                self.backups.saved()
        return "\n".join(filter(None, said))

    def _grown(self) -> Iterator[str]:
        """A word, once, where an optimizer has groups that it had not when it was tracked: a resume needs them."""
        for name, part in self._tracked.items():
            if isinstance(part, Optimizer) and (now := len(part.param_groups)) != self._groups[name]:
                before, self._groups[name] = self._groups[name], now
                yield (
                    f"note: {name} has {counted(now, 'group')} of parameters, and had {before} when it was tracked: "
                    "a resumed session has to add them before run.track(...), where run.step tells how far the run is"
                )

    def _failed(self, refusal: Refused, progress: Progress) -> str:
        wait_s = self.patience.failed(refusal, now_s=self._run.files.clock.monotonic_s())
        self.saved_step = None
        gone = self._run.store.make_room()
        good, cause = self.patience.good.step, cause_of(refusal)
        self._run.journal.write("save failed", step=progress.step, error=cause, last_good_step=good, removed=gone)
        room = f", {refusal.found}" if refusal.found else ""
        return (
            f"warning: SAVE FAILED at step {progress.step}: {cause}{room}. A kill now would lose "
            f"{progress.step - good} steps (the last good save is of step {good}). The training goes on; "
            f"the newest state is tried again in {wait_s:.0f} s"
            + (f". Removed as superseded: {', '.join(gone)}" if gone else "")
        )

    def save_best(self, progress: Progress, best: Best, *, larger: bool, extra: Extra, total: int | None) -> None:
        """Keep the model's weights as the best so far."""
        model = self._tracked.get("model")
        words = f"{best.value:.4f} {best.metric}"
        if model is None:
            self.writer.submit(lambda: f"{words} is the best so far (no part called `model` to keep)")
            return
        state, snapshot = self._copied_again(parts.state_of(model))
        meta, now = extra(progress), replace(progress)

        def fill(file: WritableFile, facts: SaveFacts) -> None:
            stamped = stamp(self._job, self._run.record, facts, now, lr=None, total=total)
            write_tree(file, compose_weights(self._job.layout, state, stamped, meta=meta), snapshot)

        def write() -> str:
            metric, value = best.metric, best.value
            name = self._run.save_best(now.step, now.epoch, fill, metric=metric, value=value, larger=larger)
            if name is None:
                return f"{words} does not beat the best file that is already here: that one is kept"
            return f"The best checkpoint with {words} at {best.step} iter is saved to {name}."

        def attempt() -> str:
            nonlocal state, snapshot
            self._best_again = None  # the better ones take their place
            try:
                return write()
            except Refused as refusal:
                if not is_of_the_disk(refusal):
                    raise
                # The training goes on, the next snapshot takes this one's place, and they wait.
                state, snapshot = map_leaves(state, torch.Tensor, lambda tensor: tensor.to("cpu", copy=True)), None
                self._best_again = write
                return (
                    f"warning: the best weights (step {now.step}, {words}) could not be written "
                    f"({cause_of(refusal)}): they wait in memory for the next save"
                )

        self.writer.submit(attempt, at_once=snapshot is None)

    @property
    def best_waits(self) -> bool:
        """Whether best weights wait in memory."""
        return self._best_again is not None

    def write_best_again(self) -> str:
        """Write the best weights that could not be written before, if there are any; returns what to say."""
        if self._best_again is None:
            return ""
        try:
            said = self._best_again()
        except Refused:  # the checkpoint that comes next matters more
            return ""
        self._best_again = None
        return said

    def _copied(self, live: Any, *, later: Iterable[torch.Tensor] = ()) -> tuple[Any, Snapshot | None]:
        """A state as it is now, also while the training goes on, and where it lies in memory.

        None: it is the live one, and is to be written before the training goes on.
        """
        if not self._beside:
            return live, None
        try:
            kept, snapshot = self._snapshots.take(live, later=later)
        except NoRoom as reason:
            if not self._waits:
                self._notes.append(f"note: {reason}: from here on the training waits until each save is written")
            self._waits = True
            return live, None
        if snapshot.copied and not self._fences:
            optimizers = [part for part in self._tracked.values() if isinstance(part, Optimizer)]
            self._fences = [each.register_step_pre_hook(lambda *_: self._snapshots.fence()) for each in optimizers]
        return kept, snapshot

    def _copied_again(self, live: Any) -> tuple[Any, Snapshot | None]:
        """The same of a part of the state; where a save of this step has copied it, that copy serves both."""
        if self._beside and (same := self._snapshots.again(live)) is not None:
            return same, Snapshot()
        self.writer.wait()
        return self._copied(live)

    def agreed(self, value: Value) -> Value:
        """What all processes that take part in the saves go by."""
        return value

    def _shards_said(self) -> Mapping[str, Any]:
        """What a head says of its shards; nothing of a file."""
        return {}

    def _of_optimizers(self, states: Mapping[str, Any]) -> Iterator[torch.Tensor]:
        """What nothing changes but a step of its optimizer: rates, which a schedule may change, are not among it."""
        for name in self._groups:
            yield from leaves(states[name].get("state", {}), torch.Tensor)

    def close(self) -> None:
        """Wait for what is being written, and let the optimizers go."""
        try:
            self.writer.close()
        finally:
            for fence in self._fences:
                fence.remove()


def current_lr(tracked: Mapping[str, Any]) -> float | None:
    """The learning rate of the first parameter group of the first tracked optimizer."""
    optimizer = next((part for part in tracked.values() if isinstance(part, Optimizer)), None)
    return float(optimizer.param_groups[0]["lr"]) if optimizer is not None else None


class Writer:
    """Does one job after the other, beside the training where that was asked for."""

    def __init__(self, *, beside: bool) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="unbroken-save") if beside else None
        self._under_way: deque[Future[str]] = deque()
        self._said: deque[str] = deque()

    def submit(self, job: Write, *, at_once: bool = False) -> None:
        """Let a job be done after those before it; one that is done at once raises their errors, and its own."""
        if self._pool is None or at_once:
            self.wait()
            self._said.append(job())
        else:
            self._under_way.append(self._pool.submit(job))

    def wait(self) -> None:
        """Return when everything submitted is done; raises what went wrong."""
        while self._under_way:
            wait([self._under_way[0]])  # until then it is under way, also for whoever interrupts here
            self._said.append(self._under_way.popleft().result())

    @property
    def busy(self) -> bool:
        """Whether a job is under way."""
        return any(not each.done() for each in self._under_way)

    @property
    def has_news(self) -> bool:
        """Whether there may be something to say, or to raise."""
        return bool(self._said or self._under_way)

    def said(self) -> list[str]:
        """What the jobs done since the last time have to say; raises what went wrong."""
        while self._under_way and self._under_way[0].done():
            self._said.append(self._under_way.popleft().result())
        lines = list(self._said)
        self._said.clear()
        return lines

    def close(self) -> None:
        """Wait, and end the thread."""
        try:
            self.wait()
        finally:
            if self._pool is not None:
                self._pool.shutdown()
