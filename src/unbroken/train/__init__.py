"""Training that survives: the only room that knows torch.

A *part* is something whose state must survive (model, optimizer, schedule, scaler, your own counters). A *step* is one
optimizer step; a *micro-batch* is what one forward pass sees. The *position* counts samples since the run began; with
the *order* it says which samples come next. *Streams* are the random generators' states. A *task* is what an
application gives to `fit`, which is written with the same pieces as anyone's own loop:

    with open_run("output", tag="baseline", config=config) as run:
        run.track(model=model, optimizer=optimizer, scheduler=scheduler)
        for batch in run.batches(dataset, batch_size=32, workers=4, epochs=80):
            ...
            run.log(loss=loss)

Read first: `start.py` (a launch), then the room `loop` (the open run); `fit.py` is an application's. The other rooms:
`state` (what is tracked), `data` (where batches come from), `record` (what is written of steps), `saving` (when a
checkpoint is due), `pretrained` (weights of other files) and `distributed` (several processes).

Touches torch, terminal (where `open_run` finds out what kind it is) and processes (which one this is, and its signals);
files only through the rooms inside and below.
"""

from unbroken.errors import NotInstalled

try:
    import torch as torch
except ImportError as error:
    raise NotInstalled(
        "unbroken.train",
        "torch cannot be loaded" if error.name != "torch" else "torch is not installed here",
        found=error,
        do="python -m pip install torch (https://pytorch.org/get-started says which one for your machine).",
    ) from None

from unbroken.clock import shown_time
from unbroken.launch.job import Accidents
from unbroken.quantities import clock_time
from unbroken.train.cadence import Every
from unbroken.train.data.check import Checked, check_dataset
from unbroken.train.data.loader import BadSample
from unbroken.train.data.one_pass import one_pass
from unbroken.train.data.rng import preserved
from unbroken.train.data.takeover import Translated
from unbroken.train.device import pick_device
from unbroken.train.distributed.shared_pass import shared_pass
from unbroken.train.distributed.world import World, this_world
from unbroken.train.dividing import even_slices
from unbroken.train.fit import fit
from unbroken.train.found import (
    FoundCheckpoint,
    dataset_meta,
    epoch_checkpoints,
    find_checkpoint,
    furthest_checkpoint,
    is_training,
    load_weights,
    named_checkpoint,
)
from unbroken.train.loop.training_run import TrainingRun
from unbroken.train.pictures import spread
from unbroken.train.pretrained.weights_file import ClassRows
from unbroken.train.progress import Progress
from unbroken.train.record.console import PlainConsole, StepReport, console_for
from unbroken.train.shapes import Blueprint, decide_by_shapes, require_takeover
from unbroken.train.start import launch, open_run, run_job
from unbroken.train.state.hyperparameters import ConfiguredScaler, GroupSettings
from unbroken.train.state.modes import evaluating
from unbroken.train.state.optimizer_state import Regrouping
from unbroken.train.state.serialise import read_tree as read_checkpoint
from unbroken.train.state.twins import count_tensors, differences
from unbroken.train.stop import Exit
from unbroken.train.task import BatchSettings, Exchange, GradientSettings, Task, Validation

__all__ = [
    "Accidents",
    "BadSample",
    "BatchSettings",
    "Blueprint",
    "Checked",
    "ClassRows",
    "ConfiguredScaler",
    "Every",
    "Exchange",
    "Exit",
    "FoundCheckpoint",
    "GradientSettings",
    "GroupSettings",
    "PlainConsole",
    "Progress",
    "Regrouping",
    "StepReport",
    "Task",
    "TrainingRun",
    "Translated",
    "Validation",
    "World",
    "check_dataset",
    "clock_time",
    "console_for",
    "count_tensors",
    "dataset_meta",
    "decide_by_shapes",
    "differences",
    "epoch_checkpoints",
    "evaluating",
    "even_slices",
    "find_checkpoint",
    "fit",
    "furthest_checkpoint",
    "is_training",
    "launch",
    "load_weights",
    "named_checkpoint",
    "one_pass",
    "open_run",
    "pick_device",
    "preserved",
    "read_checkpoint",
    "require_takeover",
    "run_job",
    "shared_pass",
    "shown_time",
    "spread",
    "this_world",
]
