"""Evaluations that draw from every global stream, with dropout active, in a process that may die when one begins."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # loaded once, as the next one is, not by each process that is forked
from torch import nn

import unbroken.train.record.event_records  # noqa: F401
from unbroken.train import Task

DIES_AT = "dies_at"  # a file in the run's folder: at the evaluation of which step the process is killed, once


def drawn(model: nn.Module) -> float:
    """A number out of torch, numpy, Python and the model's own mode."""
    dropped = nn.functional.dropout(torch.ones(64), training=model.training).sum()
    return float(dropped + torch.rand(()) + np.random.rand() + random.random())


def die_if_asked(folder: Path, step: int) -> None:
    """SIGKILL, if this is the evaluation that the process was to die in."""
    asked = folder / DIES_AT
    if asked.exists() and asked.read_text() == str(step):
        asked.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def in_a_process(session: Callable[..., object], *arguments: Any) -> int:
    """Run a session in a process of its own; returns how it ended."""
    process = multiprocessing.get_context("fork").Process(target=_alone, args=(session, *arguments))
    process.start()
    process.join()
    return process.exitcode or 0


def _alone(session: Callable[..., object], *arguments: Any) -> None:
    torch.set_num_threads(1)
    session(*arguments)


def with_drawing_evaluation(task: Task, folder: Path) -> Task:
    """The same task with an evaluation that draws, and does so well after what came before."""
    model = task.model

    def evaluate(progress: Any, _poll: Callable[[], None]) -> dict[str, float]:
        die_if_asked(folder, progress.step)
        return {**dict.fromkeys(("mAP", "mIoU"), drawn(model)), "mode": float(model.training)}

    assert task.validation is not None
    return replace(task, validation=replace(task.validation, evaluate=evaluate))


def build_aerial(job: Any, say: Any) -> Task:
    from mapsage.task import build

    return with_drawing_evaluation(build(job, say), job.directory)


def build_sonar(job: Any, say: Any) -> Task:
    from focalsst.task import build

    return with_drawing_evaluation(build(job, say), job.directory)
