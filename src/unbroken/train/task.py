"""What an application gives to `fit`: what to build on, the loss of a batch, how to evaluate, its state parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from unbroken.launch.extension import Extension
from unbroken.train.cadence import Every
from unbroken.train.data.order import Key
from unbroken.train.data.takeover import Translate, as_they_are
from unbroken.train.dividing import divided, samples_in
from unbroken.train.pretrained.weights_file import ClassRows
from unbroken.train.progress import Progress
from unbroken.train.record.console import StepReport, step_line
from unbroken.train.record.recorder import under_train

Coming = Callable[[str, int, Callable[[], list[Key]]], None]  # what is done next, of which step, with which samples
OPTIONAL = frozenset({"scaler"})  # parts that a config may switch on and off in mid-run


class Schedule(Protocol):
    """A learning-rate schedule that is stepped after each optimizer step."""

    def step(self) -> None:
        """Set the rate of the next step."""
        ...

    def state_dict(self) -> Any:
        """Its state."""
        ...

    def load_state_dict(self, state: Any, /) -> None:
        """Take a state over."""
        ...


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """How samples become micro-batches, and one of these smaller ones.

    Args:
        shuffle: "stream": batches may straddle two epochs; "none": the order of the data set.
        drop_last: Leave out an epoch's last batch where it would be smaller.
        collate: Makes a batch of a list of samples; None: as torch does.
        split: Divides a micro-batch, in its order, into so many parts of nearly equal size: when memory runs out.
        count: Says how many samples a micro-batch has.
        names: Gives what a user calls the samples of a micro-batch.
    """

    shuffle: Literal["epoch", "stream", "none"] = "epoch"
    drop_last: bool = False
    collate: Callable[[list[Any]], Any] | None = None
    split: Callable[[Any, int], Sequence[Any]] = divided
    count: Callable[[Any], int] = samples_in
    names: Callable[[Any], Sequence[str]] = lambda _batch: ()


@dataclass(frozen=True, kw_only=True)
class GradientSettings:
    """In which precision the gradients of a step are computed, how large they may be, and in how much memory.

    Args:
        clip_norm: Largest norm of all gradients together; None: they are not clipped.
        clip_norm_type: Which norm: 2.0 is the Euclidean one.
        autocast: Gives the context in which the loss is computed.
        scaler: Scales the loss, for float16; None: it is not scaled.
        recompute: Switches gradient checkpointing on, when memory runs out; None: the model has none.
    """

    clip_norm: float | None = None
    clip_norm_type: float = 2.0
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    scaler: GradScaler | None = None
    recompute: Callable[[], None] | None = None


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What is evaluated, when, and by what the best weights are kept.

    Args:
        evaluate: Called with the progress and a function to call between batches, so that a stop is heard; gives
            metrics.
        every: When `evaluate` is called; the end of the training in any case.
        from_step: Step before which nothing is evaluated.
        best: Metric by which the best weights are kept; None: none are.
        best_is_larger: Whether a larger value of `best` is the better one.
        pictures: Called after each evaluation: what the model predicts of a few fixed samples, PNG files by short
            name; None: nothing is drawn.
    """

    evaluate: Callable[[Progress, Callable[[], None]], Mapping[str, float]]
    every: Every = field(default_factory=Every)
    from_step: int = 1
    best: str | None = None
    best_is_larger: bool = True
    pictures: Callable[[Progress], Mapping[str, bytes]] | None = None


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """How checkpoints with other names or of another form are read, and what ours hold for other programs.

    Args:
        rename_weights: Gives a file's names as the model spells them, those of our own earlier checkpoints too.
        class_rows: For fine-tuning: which rows are classes; None: none are.
        translate: Spells the states in a checkpoint of another program as the parts here do.
        extra: Gives further entries of a checkpoint, for the tools of another program.
    """

    rename_weights: Callable[[str], str] = str
    class_rows: ClassRows | None = None
    translate: Translate = as_they_are
    extra: Callable[[Progress], Mapping[str, Any]] = lambda _progress: {}


@dataclass(frozen=True, kw_only=True)
class Task:
    """Everything `fit` needs: parts, data, the loss of a batch, the length, and groups of further settings.

    Args:
        model: Network that is trained.
        optimizer: Made over the model's parameters.
        schedule: Stepped after each optimizer step; has `step`, `state_dict`, `load_state_dict`.
        other_parts: What else must survive, by name.
        dataset: What is trained on, as `TrainingRun.batches` takes it.
        batch_size: Samples of a micro-batch.
        accumulate: Micro-batches of a step.
        workers: Processes that read; 0: this one.
        loss: Maps a micro-batch to named values, "loss" being the one to minimise.
        steps: Length of the training in optimizer steps; None: it is said in epochs.
        epochs: The same in epochs, the last step of each may then have fewer micro-batches; None: `steps` says it.
        batches: How samples become micro-batches.
        gradients: Precision and largest norm of the gradients.
        validation: What is evaluated and when; None: nothing is.
        exchange: How checkpoints of other programs are read, and what ours hold for them.
        follow_config: Called after a resume with the step and the extension, if there is one: brings schedule and
            optimizer to where the present config has them, and gives a sentence if that changed anything.
        step_line: Words the log's line of a step.
        curves: Gives what TensorBoard shows of a step's values, by its own names.
    """

    model: nn.Module
    optimizer: Optimizer
    schedule: Schedule
    other_parts: Mapping[str, Any] = field(default_factory=dict)
    dataset: Any
    batch_size: int
    accumulate: int = 1
    workers: int = 0
    loss: Callable[[Any], Mapping[str, Tensor]]
    steps: int | None = None
    epochs: int | None = None
    batches: BatchSettings = field(default_factory=BatchSettings)
    gradients: GradientSettings = field(default_factory=GradientSettings)
    validation: Validation | None = None
    exchange: Exchange = field(default_factory=Exchange)
    follow_config: Callable[[int, Extension | None], str | None] = lambda _step, _extension: None
    step_line: Callable[[StepReport], str] = step_line
    curves: Callable[[Mapping[str, float]], Mapping[str, float]] = under_train

    def parts(self) -> dict[str, Any]:
        """Return everything whose state must survive, by the name under which it is tracked."""
        found = {"model": self.model, "optimizer": self.optimizer, "scheduler": self.schedule}
        if self.gradients.scaler is not None:
            found["scaler"] = self.gradients.scaler
        return {**found, **self.other_parts}
