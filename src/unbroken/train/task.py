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
from unbroken.train.data.takeover import Translate, as_they_are
from unbroken.train.dividing import divided, samples_in
from unbroken.train.pretrained.weights_file import ClassRows
from unbroken.train.progress import Progress
from unbroken.train.record.console import StepReport, step_line
from unbroken.train.record.recorder import under_train

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
class Task:
    """Everything `fit` needs: the parts, the data, the loss of a batch, the evaluation."""

    model: nn.Module  # network that is trained
    optimizer: Optimizer  # over its parameters
    schedule: Schedule  # stepped after each optimizer step; has `step`, `state_dict`, `load_state_dict`
    dataset: Any  # of the training, as `TrainingRun.batches` takes it
    batch_size: int  # samples of a micro-batch
    loss: Callable[[Any], Mapping[str, Tensor]]  # maps a micro-batch to named values, "loss" being the one to minimise
    steps: int | None = None  # length of the training in optimizer steps; or
    epochs: int | None = None  # in epochs: then the last step of each may have fewer micro-batches than the others
    workers: int = 0  # processes that read; 0: this one
    # "stream": batches may straddle two epochs; "none": the order of the data set
    shuffle: Literal["epoch", "stream", "none"] = "epoch"
    drop_last: bool = False  # leave out an epoch's last batch where it would be smaller
    collate: Callable[[list[Any]], Any] | None = None  # makes a batch of a list of samples; None: as torch does
    accumulate: int = 1  # micro-batches of a step
    clip_norm: float | None = None  # largest norm of all gradients together; None: they are not clipped
    clip_norm_type: float = 2.0  # which norm: 2.0 is the Euclidean one
    scaler: GradScaler | None = None  # of the loss, for float16
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext  # gives the context in which `loss` is computed
    # called with the progress and a function to call between batches, so that a stop is heard; gives metrics
    evaluate: Callable[[Progress, Callable[[], None]], Mapping[str, float]] | None = None
    # when `evaluate` is called; the end of the training in any case
    evaluate_every: Every = field(default_factory=Every)
    evaluate_from: int = 1  # step before which nothing is evaluated
    best: str | None = None  # metric by which the best weights are kept; None: none are
    best_is_larger: bool = True  # whether a larger value of `best` is the better one
    # called after a resume with the step and the extension, if there is one: brings schedule and optimizer to where the
    # present config has them, and gives a sentence if that changed anything
    follow_config: Callable[[int, Extension | None], str | None] = lambda _step, _extension: None
    step_line: Callable[[StepReport], str] = step_line  # words the log's line of a step
    # gives what TensorBoard shows of a step's values, by its own names
    curves: Callable[[Mapping[str, float]], Mapping[str, float]] = under_train
    # called after each evaluation: what the model predicts of a few fixed samples, PNG files by short name
    pictures: Callable[[Progress], Mapping[str, bytes]] | None = None
    # gives further entries of a checkpoint, for the tools of another program
    extra: Callable[[Progress], Mapping[str, Any]] = lambda _progress: {}
    # gives a file's names as the model spells them, those of our own earlier checkpoints too
    rename_weights: Callable[[str], str] = str
    class_rows: ClassRows | None = None  # for fine-tuning: which rows are classes; None: none are
    translate: Translate = as_they_are  # spells the states in a checkpoint of another program as the parts here do
    # divides a micro-batch, in its order, into so many parts of nearly equal size: when memory runs out
    split: Callable[[Any, int], Sequence[Any]] = divided
    count: Callable[[Any], int] = samples_in  # says how many samples a micro-batch has
    names: Callable[[Any], Sequence[str]] = lambda _batch: ()  # gives what a user calls the samples of a micro-batch
    # switches gradient checkpointing on, when memory runs out; None: the model has none
    recompute: Callable[[], None] | None = None
    other_parts: Mapping[str, Any] = field(default_factory=dict)  # what else must survive, by name

    def parts(self) -> dict[str, Any]:
        """Return everything whose state must survive, by the name under which it is tracked."""
        found = {"model": self.model, "optimizer": self.optimizer, "scheduler": self.schedule}
        if self.scaler is not None:
            found["scaler"] = self.scaler
        return {**found, **self.other_parts}
