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
    """Everything `fit` needs. `loss` maps a micro-batch to named values, "loss" being the one to minimise.

    `evaluate(progress, poll)` returns metrics and calls `poll()` between batches, so that a stop is heard.
    The training is `steps` steps long, or `epochs` epochs, and then the last step of each epoch may have fewer
    micro-batches than the others. `follow_config(step, extension)`, called after a resume, brings schedule and
    optimizer to where the present config has them there, extended if there is an extension, and returns a sentence if
    that changed anything. `step_line` words the log's line of a step; `curves` gives what TensorBoard shows of a step's
    values, by its own names. `pictures(progress)`, called after each evaluation, draws what the model predicts of a few
    fixed samples: PNG files by short name. `translate(parts, path)` spells the states in a checkpoint of another
    program as the parts here do. `rename_weights` gives a file's names as the model spells them, those of our own
    earlier checkpoints too; `class_rows` says for fine-tuning which rows are classes. When memory runs out,
    `split(batch, parts)` divides a micro-batch in its order into parts of nearly equal size, `count(batch)` says how
    many samples it has, and `recompute()` switches gradient checkpointing on, where the model has it. `names(batch)`
    is what a user calls its samples.
    """

    model: nn.Module
    optimizer: Optimizer
    schedule: Schedule
    dataset: Any
    batch_size: int
    loss: Callable[[Any], Mapping[str, Tensor]]
    steps: int | None = None
    epochs: int | None = None
    workers: int = 0
    shuffle: Literal["epoch", "stream", "none"] = "epoch"
    drop_last: bool = False
    collate: Callable[[list[Any]], Any] | None = None
    accumulate: int = 1
    clip_norm: float | None = None
    clip_norm_type: float = 2.0
    scaler: GradScaler | None = None
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    evaluate: Callable[[Progress, Callable[[], None]], Mapping[str, float]] | None = None
    evaluate_every: Every = field(default_factory=Every)
    evaluate_from: int = 1
    best: str | None = None
    best_is_larger: bool = True
    follow_config: Callable[[int, Extension | None], str | None] = lambda _step, _extension: None
    step_line: Callable[[StepReport], str] = step_line
    curves: Callable[[Mapping[str, float]], Mapping[str, float]] = under_train
    pictures: Callable[[Progress], Mapping[str, bytes]] | None = None
    extra: Callable[[Progress], Mapping[str, Any]] = lambda _progress: {}
    rename_weights: Callable[[str], str] = str
    class_rows: ClassRows | None = None
    translate: Translate = as_they_are
    split: Callable[[Any, int], Sequence[Any]] = divided
    count: Callable[[Any], int] = samples_in
    names: Callable[[Any], Sequence[str]] = lambda _batch: ()
    recompute: Callable[[], None] | None = None
    other_parts: Mapping[str, Any] = field(default_factory=dict)

    def parts(self) -> dict[str, Any]:
        """Everything whose state must survive."""
        found = {"model": self.model, "optimizer": self.optimizer, "scheduler": self.schedule}
        if self.scaler is not None:
            found["scaler"] = self.scaler
        return {**found, **self.other_parts}
