"""Opening what a session writes for people to read, and saying what it goes on from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from unbroken.errors import UnreadableSample, UsageError
from unbroken.launch import Finished, Job, Plan, Resume
from unbroken.launch.rerun import again_in_words
from unbroken.quantities import counted
from unbroken.run import OpenRun
from unbroken.storage import explained
from unbroken.train.device import accelerators_of, exactness_lines
from unbroken.train.length import Length
from unbroken.train.progress import Progress
from unbroken.train.record.console import CANNOT_LOG, SessionLog
from unbroken.train.record.tensorboard import rewind
from unbroken.train.stop import Interrupted

COUNTS_ANEW = "enumerate(...) counts from 0 in this session"


def open_outputs(run: OpenRun, job: Job, log: SessionLog, *, step: int, tracked: Mapping[str, Any]) -> None:
    """Open log and scalars of a session that goes on after `step`, and write the texts that belong beside them.

    The log begins with what keeps the bits from being the same again.
    """
    layout, disk, directory = job.layout, run.files.disk, run.directory
    if layout.run_scalars:
        with explained(disk, directory, CANNOT_LOG):
            rewind(disk, directory / layout.run_scalars, step=step)
    log.open(disk, run.log_path, layout.scalars(directory, run.files.session), moment=layout.log_moment)
    for name, text in job.texts.items():
        run.keep_text(name, text)
    do = "torch.use_deterministic_algorithms(True) before the loop" if job.is_script else "--deterministic"
    deterministic = torch.are_deterministic_algorithms_enabled()
    for line in exactness_lines(accelerators_of(tracked), deterministic=deterministic, do=do):
        log.say(line)


def note_accepted(progress: Progress, plan: Resume) -> None:
    """Keep for ever, in every checkpoint from here on, which changes of meaning were accepted, and when."""
    progress.accepted = [
        *progress.accepted,
        *({"step": progress.step, "key": change.key, "words": str(change)} for change in plan.accepted),
    ]


def require_nothing_more(plan: Plan, progress: Progress, *, epochs: int | None, steps: int | None) -> None:
    """Raise where a loop asks a completed run for more than its launch knew of: it would do nothing, silently."""
    if isinstance(plan, Finished) and plan.early:
        return
    done, asked = (progress.epoch, epochs) if epochs is not None else (progress.step, steps)
    if asked is not None and asked > done:
        unit = "epochs" if epochs is not None else "steps"
        raise UsageError(
            "run",
            f"it was completed after {done} {unit}, and the launch could not know that more are asked for now",
            found=f"{unit}={asked}",
            do=f'Say it where the launch sees it too: open_run(..., config={{"{unit}": {asked}, ...}}).',
        )


def say_interrupted(error: BaseException, job: Job, say: Callable[[str], None]) -> None:
    """Say of a stop that came before anything was done that it changed nothing."""
    if isinstance(error, Interrupted):
        nothing = f"{error.reason} before the first step: nothing was changed"
        say(f"{nothing}\nto continue, {again_in_words(job.environment, job.command)}")


def counter_words(batch: int) -> str:
    """What to say where `enumerate` counts the batches of an epoch that goes on."""
    return (
        f"warning: {COUNTS_ANEW}, and the next batch is number {batch} of its epoch: "
        "a loop that uses the number takes run.batch"
    )


def begun_words(epoch: int, changed: Sequence[str]) -> str:
    """What became of the beginning of an epoch in whose middle a session begins."""
    return (
        f"epoch {epoch} had begun: what the loop does before its batches is done again, and what it changed of "
        f"{', '.join(changed)} is put back"
    )


def streams_line(seed: int, *, had_states: bool) -> str:
    """What became of the random streams."""
    before = "the file is of a version that kept their states; from here on they are " if had_states else ""
    return f"resume random streams: {before}seeded for each step, from seed {seed}"


def advice(error: UnreadableSample, job: Job) -> list[str]:
    """What to say of a sample that cannot be read, besides the error: where that was seen, and what can be done."""
    if job.is_script:
        do = 'to leave such samples out: open_run(..., on_bad="skip")'
    else:
        find = f"unbroken check {job.recipe} ... (the same arguments)"
        do = f"to leave such samples out: --on-bad-sample skip; to find them all: {find}"
    return [*([error.trace] if error.trace else []), do]


def position_lines(progress: Progress, length: Length) -> Iterator[str]:
    """Where in the data the training goes on; that nothing is left to do where a loop asks for less than is done."""
    if progress.dataset_size:
        offset = progress.position % progress.dataset_size
        yield f"resume data position: epoch {progress.epoch}, sample {offset} of {progress.dataset_size}"
    for unit, asked, done in (("epoch", length.epochs, progress.epoch), ("step", length.steps, progress.step)):
        if asked is not None and asked < done:
            are = "is" if asked == 1 else "are"
            yield f"note: {counted(asked, unit)} {are} asked for and {done} are done: nothing is left to train"
