"""One optimizer step over its micro-batches, and what becomes of it when memory runs out or a number is not finite.

What a step may change before its optimizer steps is kept and can be put back: a step that fails leaves no trace, is
done again in smaller parts, or ends the run with the state after the step before it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, get_total_norm

from unbroken.errors import Refused
from unbroken.journal import Event, read_events
from unbroken.launch import Resume
from unbroken.launch.job import Accidents
from unbroken.quantities import counted
from unbroken.run.layout import own
from unbroken.train import finite, memory
from unbroken.train.data.order import Key
from unbroken.train.distributed.shards import Shards
from unbroken.train.loop.training_run import TrainingRun
from unbroken.train.memory import Division
from unbroken.train.state import parts
from unbroken.train.state.in_place import CONTAINERS
from unbroken.train.task import Task


@dataclass(kw_only=True)
class BackwardResults:
    """What the backward passes of a step left, besides the gradients themselves."""

    values: dict[str, Tensor] = field(default_factory=dict)  # the mean of each named value
    losses: list[Tensor] = field(default_factory=list)  # of each micro-batch
    norm: Tensor | None = None
    shards: Shards | None = None  # that are to be added up


class Stepper:
    """Does the steps of a session; knows what its run has learned about memory."""

    def __init__(self, run: TrainingRun, task: Task, accidents: Accidents) -> None:
        self._run, self._task, self._accidents = run, task, accidents
        self._divisions: list[Division] = []
        self._recomputes = self._unscaled = False
        self._ignored = 0  # in this session

    def begin(self) -> None:
        """Take over what the run has learned; it is open, and no batch was read yet."""
        run, feed, events = self._run, self._run.opened.feed, self._events()
        run.progress.excluded = finite.left_out(run.progress.excluded, events, epoch=run.epoch)
        if feed is not None:
            feed.excluded = frozenset((epoch, sample) for epoch, sample in run.progress.excluded)
        if self._accidents.on_nan == "rollback":
            source = run.plan.source.name if isinstance(run.plan, Resume) else "model"
            finite.require_finite_weights(self._task.model, source)
        if self._accidents.on_oom == "fail":
            run.progress.divisions = []
            return
        self._divisions = memory.learned(run.progress.divisions, events, after=run.step)
        if present := memory.division_at(self._divisions, run.step + 1):
            learned = f"learned in step {present.step}, where memory ran out"
            run.session_log.say(f"{memory.in_words(present)}: {learned}; --on-oom fail takes whole micro-batches again")

    def groups(self, batches: Iterable[Any]) -> Iterator[list[Any]]:
        """The micro-batches of each step; in a training by epochs, none holds batches of two of them."""
        run, task, group = self._run, self._task, list[Any]()
        turns = len(run.current.sharing.mine)  # so many for each micro-batch
        for batch in batches:
            group.append(batch)
            whole = len(group) % turns == 0
            if len(group) == task.accumulate * turns or (whole and task.epochs is not None and run.at_end_of_epoch):
                yield group
                group = []
        if group:
            yield group

    def take(self, group: Sequence[Any]) -> dict[str, Tensor]:
        """One step; returns the mean of each named value."""
        before = Before(self._task)
        try:
            while (found := self._attempt(group, before)) is None:
                pass
            self._require_finite(found, group, before)
        except BaseException:
            with suppress(RuntimeError):  # a device that failed for good gives nothing back
                self._put_back(before)
            raise
        try:
            self._update()
        except (RuntimeError, MemoryError) as error:
            if not memory.is_out_of_memory(error):
                raise
            raise self._cannot_be_undone(error) from error
        return found.values

    # -- memory --------------------------------------------------------------------------------------------------

    def _attempt(self, group: Sequence[Any], before: Before) -> BackwardResults | None:
        """The gradients of a step; None if memory ran out and the next attempt needs less."""
        division, world, said = self._in_force(), self._run.world, None
        try:
            found = self._gradients(group, division)
        except (RuntimeError, MemoryError) as error:
            if not memory.is_out_of_memory(error):
                raise
            said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        # Outside: the error's trace holds the tensors of the failed attempt.
        if (said := world.agree(said)) is None:
            return self._summed(found)
        self._put_back(before)
        memory.let_go()
        largest = max(memory.largest_part(self._task.batches.count(batch), division) for batch in group)
        self._divide_further(max(world.gather_values(largest)), division, said)
        return None

    def _in_force(self) -> Division | None:
        """What was learned of memory, as far as it holds in the coming step; recorded with it."""
        division = memory.division_at(self._divisions, self._run.step + 1)
        recompute = self._task.gradients.recompute
        if division is not None and division.recompute and not self._recomputes and recompute is not None:
            recompute()
            self._recomputes = True
        held = [each.as_plain() for each in self._divisions if each.step <= self._run.step + 1]
        self._run.progress.divisions = held
        return division

    def _divide_further(self, largest: int, present: Division | None, said: str) -> None:
        run, step = self._run, self._run.step + 1
        if self._accidents.on_oom == "fail":
            raise self._out_of_memory(largest, said, tried="the step was not repeated: --on-oom fail")
        can_recompute = self._task.gradients.recompute is not None
        less = memory.smaller(largest, present, step=step, can_recompute=can_recompute)
        if less is None:
            checkpointing = "with gradient checkpointing" if can_recompute else "the network has no checkpointing"
            raise self._out_of_memory(largest, said, tried=f"it cannot be divided further, {checkpointing}")
        self._divisions = [*self._divisions, less]
        run.opened.run.journal.write(
            memory.EVENT, step=step, before=largest, after=less.micro_batch, recompute=less.recompute, error=said
        )
        run.session_log.say(
            f"out of memory in step {step} with {counted(largest, 'sample')} at once ({said})\n"
            f"step {step} is repeated with {memory.in_words(less)}: the same samples, the same random state, the mean "
            "over them; the run goes on like this\n"
            "  not quite the same: layers that normalise over a batch, losses that divide by what a batch holds "
            "(labelled pixels, boxes)"
        )

    def _out_of_memory(self, largest: int, said: str, *, tried: str) -> Refused:
        saved = self._keep()
        return Refused(
            f"step {self._run.step + 1}",
            f"memory ran out with {counted(largest, 'sample')} at once; {tried}",
            found=said,
            do=f"Make the samples or the network smaller, use mixed precision, or a device with more memory; {saved}.",
        )

    def _cannot_be_undone(self, error: BaseException) -> Refused:
        return Refused(
            f"step {self._run.step + 1}",
            "memory ran out while the optimizer changed the weights, which cannot be taken back",
            found=str(error).strip().splitlines()[0],
            do="Run the same command again: it goes on from the last checkpoint. If it happens there too, the "
            "optimizer's state needs more memory than there is.",
        )

    # -- gradients -----------------------------------------------------------------------------------------------

    def _gradients(self, group: Sequence[Any], division: Division | None) -> BackwardResults:
        """The backward passes over all micro-batches, or over the shards of them that this process computes."""
        task, current, found = self._task, self._run.current, BackwardResults()
        task.model.train()
        if not current.sharing.is_whole:
            return self._gradients_of_shards(group, division)
        number = 0  # of the part, over all micro-batches: halves of one draw as two micro-batches would
        for batch in group:
            losses = []
            for part, share in self._parts(batch, division):
                current.seed("step", self._run.step + 1, number)  # again, where it is done again
                losses.append(self._backward(part, share, len(group), found.values))
                number += 1
            found.losses.append(sum(losses[1:], losses[0]))
        return found

    def _gradients_of_shards(self, group: Sequence[Any], division: Division | None) -> BackwardResults:
        """The same where micro-batches are cut: each shard is named, and weighed by its samples."""
        run, current = self._run, self._run.current
        buffers = [tensor for _, _, tensor in _buffers(self._task.parts())]
        shards = Shards(run.world, current.sharing, self._trained(), buffers)
        micro_batches = len(group) // len(current.sharing.mine)
        for turn, (batch, weight) in enumerate(zip(group, current.weights)):
            with shards.computing(turn) as shard:
                shard.weight += weight / micro_batches
                values = dict[str, Tensor]()
                for number, (part, share) in enumerate(self._parts(batch, division)):
                    divided = (number,) if share != 1.0 else ()
                    current.seed("step", run.step + 1, current.sharing.number(turn), *divided)
                    self._backward(part, share * weight, micro_batches, values)
                for name, value in values.items():
                    shard.values[name] = shard.values.get(name, 0.0) + float(value)
        return BackwardResults(shards=shards)

    def _summed(self, found: BackwardResults) -> BackwardResults:
        """The norm of the gradients of all shards, clipped if the task says so."""
        task, trained = self._task, self._trained()
        if found.shards is not None:
            found.values = {name: torch.tensor(value) for name, value in found.shards.add_up().items()}
            found.losses, found.shards = [found.values["loss"]], None
            self._run.current.is_shared = True
        trained = [each for each in trained if each.grad is not None]
        asked = task.gradients
        if asked.clip_norm is not None:
            if asked.scaler:
                asked.scaler.unscale_(task.optimizer)
                self._unscaled = True
            found.norm = clip_grad_norm_(trained, asked.clip_norm, norm_type=asked.clip_norm_type)
            found.values["grad_norm"] = found.norm
        elif not asked.scaler and self._accidents.on_nan != "ignore":
            found.norm = get_total_norm([each.grad for each in trained if each.grad is not None])
        return found

    def _trained(self) -> list[Any]:
        """The parameters of the optimizer, in its order."""
        return [each for group in self._task.optimizer.param_groups for each in group["params"]]

    def _parts(self, batch: Any, division: Division | None) -> Iterator[tuple[Any, float]]:
        """A micro-batch in as many parts as memory needs, each with its share of the samples."""
        samples = self._task.batches.count(batch) if division is not None else 0
        number = memory.parts_of(samples, division)
        if number == 1:
            yield batch, 1.0
            return
        for part in self._task.batches.split(batch, number):
            yield part, self._task.batches.count(part) / samples

    def _backward(self, part: Any, share: float, micro_batches: int, found: dict[str, Tensor]) -> Tensor:
        """Forward and backward pass of one part, weighed by its share of a micro-batch; returns its share of the loss.

        A whole micro-batch is weighed by nothing but their number, bit for bit as without any parts.
        """
        scaler = self._task.gradients.scaler
        with self._task.gradients.autocast():
            values = self._task.loss(part)
        for name, value in values.items():
            weighed = value.detach() / micro_batches if share == 1.0 else value.detach() * share / micro_batches
            found[name] = found.get(name, 0.0) + weighed
        whole = values["loss"] / micro_batches
        loss = whole if share == 1.0 else whole * share
        (scaler.scale(loss) if scaler else loss).backward()  # type: ignore[no-untyped-call]  # torch has no type
        return values["loss"].detach() * share

    def _update(self) -> None:
        task, scaler = self._task, self._task.gradients.scaler
        if scaler:
            scaler.step(task.optimizer)
            scaler.update()
        else:
            task.optimizer.step()
        self._unscaled = False
        task.optimizer.zero_grad(set_to_none=True)

    def _put_back(self, before: Before) -> None:
        before.put_back()
        if self._unscaled and (scaler := self._task.gradients.scaler):
            scaler.update(scaler.get_scale())  # forgets the unscaling, keeps the scale
        self._unscaled = False
        self._run.current.mark()

    # -- numbers that are none -----------------------------------------------------------------------------------

    def _require_finite(self, found: BackwardResults, group: Sequence[Any], before: Before) -> None:
        """Raise, with nothing of the step kept, unless loss and gradients are finite or the user does not mind."""
        loss, norm = found.values["loss"], None if self._task.gradients.scaler else found.norm
        if finite.finite([loss, norm]):
            return
        step = self._run.step + 1
        what = "the norm of the gradients" if finite.finite([loss]) else "the loss"
        value = float(found.norm if found.norm is not None and finite.finite([loss]) else loss)
        keys, names = self._to_blame(found, group)
        samples = f"{value} on {finite.samples_in_words(keys, names)}"
        if self._accidents.on_nan == "ignore":
            self._ignore(step, what, samples)
            return
        self._put_back(before)
        if self._accidents.on_nan == "stop":
            raise finite.stopping(step, what, samples=samples, saved=self._keep())
        self._go_back(step, what, samples, names)

    def _to_blame(self, found: BackwardResults, group: Sequence[Any]) -> tuple[list[Key], list[str]]:
        """The samples, by number and by name, of the micro-batches whose loss is not finite; of all, if each is."""
        keys = list(self._run.current.samples)
        if not self._run.current.sharing.is_whole:  # which of them are to blame no process knows alone
            return keys, []
        blamed: list[Key] = []
        names: list[str] = []
        sound = [finite.finite([loss]) for loss in found.losses]
        for batch, is_sound in zip(group, sound):
            here, keys = keys[: self._task.batches.count(batch)], keys[self._task.batches.count(batch) :]
            if not is_sound or all(sound):
                blamed += here
                names += self._task.batches.names(batch)
        return blamed, names

    def _ignore(self, step: int, what: str, samples: str) -> None:
        run = self._run
        run.progress.not_finite += 1
        self._ignored += 1
        if self._ignored == 1:
            run.opened.run.journal.write("not finite", step=step, what=what, found=samples)
            run.session_log.say(
                f"step {step}: {what} is not a number: {samples}; it goes on (--on-nan ignore), said once"
            )

    def _go_back(self, step: int, what: str, samples: str, names: list[str]) -> NoReturn:
        run = self._run
        if finite.rollbacks_at(self._events(), step) >= finite.MOST_AT_ONE_STEP:
            raise finite.giving_up(step, what, samples=samples, saved=self._keep())
        all_keys = [list(key) for key in run.current.samples]
        run.opened.run.journal.write(finite.EVENT, step=step, what=what, samples=all_keys, names=names, found=samples)
        said = f"step {step}: {what} is not a number any more: {samples}"
        run.session_log.say(
            f"{said}\ngoing back to the last checkpoint; the samples of this step are left out of their epoch"
        )
        raise finite.GoBack(said)

    def say_ignored(self) -> None:
        """Say at the end how often a number was not finite."""
        if self._ignored:
            steps = counted(self._ignored, "step")
            self._run.session_log.say(f"{steps} of this session had a loss or a gradient that is not a number")

    # -- records -------------------------------------------------------------------------------------------------

    def _keep(self) -> str:
        """Save the state after the last finished step; says so."""
        run = self._run
        if not run.opened.is_saved(run.step):
            run.save()
        run.wait_for_saves()
        return f"the state after step {run.step} is saved" if run.step else "nothing was trained yet"

    def _events(self) -> Sequence[Event]:
        return read_events(own(self._run.directory) / "journal.jsonl")


class Before:
    """The buffers (running statistics) and the small parts of a task, as a step begins."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._buffers = [(*found, found[2].clone()) for found in _buffers(task.parts())]
        self._small = _small(task.parts())
        self._states = {name: copy.deepcopy(parts.state_of(part)) for name, part in self._small.items()}

    @torch.no_grad()
    def put_back(self) -> None:
        """Make everything as it was; no gradient is left."""
        for module, name, tensor, value in self._buffers:
            tensor.copy_(value)
            setattr(module, name, tensor)  # a forward pass may have put another tensor in its place
        parts.restore(self._small, self._states, "the state before the step")
        self._task.optimizer.zero_grad(set_to_none=True)


def _buffers(tracked: Mapping[str, Any]) -> Iterator[tuple[nn.Module, str, torch.Tensor]]:
    for part in tracked.values():
        for module in part.modules() if isinstance(part, nn.Module) else ():
            for name, buffer in module.named_buffers(recurse=False):
                yield module, name, buffer


def _small(tracked: Mapping[str, Any]) -> dict[str, Any]:
    """Counters and generators, which a loss may have moved on; all else changes only after it."""
    return {name: part for name, part in tracked.items() if isinstance(part, (*CONTAINERS, *parts.GENERATORS))}
