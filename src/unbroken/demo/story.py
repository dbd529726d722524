"""A training that is killed and resumed beside its twin: the processes, what they recorded, the verdict, the curves."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from unbroken.journal import read_steps
from unbroken.storage import Disk, write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Say = Callable[[str], None]
Record = Mapping[str, Any]  # a line of a run's metrics.jsonl

MOST_DIFFERENCES: Final = 5
LINES: Final[tuple[Literal["-", "--", "-.", ":"], ...]] = ("-", "--", "-.", ":")
MARKS: Final = ("o", "s", "^", "D")


def typed(words: Sequence[str], *, threads: int) -> str:
    """Return a command as a reader types it.

    Args:
        words: The command, `unbroken` first.
        threads: With how many threads it computes.
    """
    return f"OMP_NUM_THREADS={threads} {shlex.join(words)}"


@contextmanager
def started(words: Sequence[str], *, log: Path, folder: Path, threads: int) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a process of a story, which does not outlive the block.

    Args:
        words: The command, `unbroken` first.
        log: The file to whose end it prints.
        folder: Where it is typed.
        threads: With how many threads it computes.
    """
    inherited = os.environ  # noqa: TID251 - passed on to a child and not looked at
    environment = {**inherited, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", *words]
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=folder, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def train_until(
    process: subprocess.Popen[bytes],
    until: Callable[[], bool],
    *,
    poll_s: float = 0.05,
    meanwhile: Callable[[], None] = lambda: None,
) -> int | None:
    """Wait for a process to end, and kill it by SIGKILL once it is time.

    Args:
        process: One that was `started`.
        until: Whether it is time.
        poll_s: How often that is asked, in seconds.
        meanwhile: Called as often.
    Returns:
        Its exit code where it ended by itself before; None where it was killed.
    """
    while process.poll() is None and not until():
        meanwhile()
        time.sleep(poll_s)
    code = process.poll()
    process.kill()
    process.wait()
    return code


def steps_done(run: Path) -> int:
    """Return the last step that a run has recorded, 0 before the first.

    Args:
        run: Its folder.
    """
    return max((int(record["step"]) for record in _records(run)), default=0)


def losses_of(run: Path) -> dict[int, float]:
    """Return the loss of every step, from its last doing.

    Args:
        run: The run's folder.
    """
    return {record["step"]: record["loss"] for record in _records(run) if "loss" in record}


def sessions_of(run: Path) -> list[list[Record]]:
    """Return what each session has recorded of its steps and evaluations, in order.

    Args:
        run: The run's folder.
    """
    found: dict[str, list[Record]] = {}
    for record in _records(run):
        found.setdefault(str(record["session"]), []).append(record)
    return list(found.values())


def _records(run: Path) -> list[Record]:
    return list(read_steps(run / "unbroken" / "metrics.jsonl"))


def compare_runs(run: Path, twin: Path, *, last: tuple[Path, Path], holds: str, say: Say) -> bool:
    """Return whether two runs are the same to the last bit: their last checkpoints, and the losses of all their steps.

    Args:
        run: The folder of the one that was interrupted.
        twin: The folder of the other.
        last: The last checkpoint of each.
        holds: What they hold, in words: "(weights, moments), counters".
        say: Told what is compared, and how it compares.
    """
    from unbroken.train import count_tensors, differences, read_checkpoint

    one, other = map(read_checkpoint, last)
    alike = last[0].name == last[1].name
    found = differences(one, other) if alike else ["the names of the checkpoints differ"]
    losses = losses_of(twin)
    same_losses = losses_of(run) == losses
    for path in last:
        say(f"   {path}")
    say(f"   {count_tensors(one)} tensors {holds}:")
    say(f"      {f'DIFFERENT, {len(found)} of them' if found else 'identical, to the last bit'}")
    for text in found[:MOST_DIFFERENCES]:
        say(f"      {text}")
    say(f"   losses of all {len(losses)} steps: {'identical' if same_losses else 'DIFFERENT'}")
    return not found and same_losses


def say_verdict(same: bool, say: Say) -> None:
    """Say how a story ended.

    Args:
        same: Whether not a bit differs.
        say: Told the verdict.
    """
    say(f"\nVERDICT: the run that was killed twice is {'BIT-IDENTICAL to' if same else 'NOT the same as'} its twin.")


def draw_curves(
    sessions: Iterable[Sequence[Record]],
    twin: Iterable[Sequence[Record]],
    path: Path,
    *,
    scores: Sequence[str],
    what: str,
    by_epochs: bool = False,
    title: str = "Interrupted and resumed by the same command; dotted lines: where a session ended",
) -> None:
    """Draw a run as a PNG, each session in its colour over the uninterrupted twin in grey.

    Left stands the loss of every step, right what evaluations found.

    Args:
        sessions: What each session of the run has recorded, as `sessions_of` returns it.
        twin: The same of the twin; it may be empty.
        path: The file that is written.
        scores: The names of the evaluations' values that are drawn.
        what: What these are, beside their axis.
        by_epochs: Whether they stand over epochs, else over steps.
        title: What stands above all.
    """
    from matplotlib.figure import Figure  # half a second, and only wanted here
    from matplotlib.lines import Line2D

    each = [records for records in sessions if records]
    whole = [record for records in twin for record in records]
    per_epoch = _steps_per_epoch(whole or [record for records in each for record in records]) if by_epochs else 1
    figure = Figure(figsize=(14, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    if whole:
        left.plot(*_column(whole, "loss"), color="0.55", linewidth=4, alpha=0.45, label="uninterrupted twin")
        for line, name in zip(LINES, scores):
            _plot_score(right, whole, name, per_epoch, line, color="0.55", linewidth=5, alpha=0.45)
    for number, records in enumerate(each, start=1):
        colour, (steps, losses) = f"C{number - 1}", _column(records, "loss")
        if not steps:
            continue
        left.plot(steps, losses, color=colour, linewidth=1, label=f"session {number}: steps {steps[0]}-{steps[-1]}")
        left.axvline(steps[-1], color=colour, linestyle=":", linewidth=1)
        right.axvline(steps[-1] / per_epoch, color=colour, linestyle=":", linewidth=1)
        for mark, name in zip(MARKS, scores):
            _plot_score(right, records, name, per_epoch, f"{mark}-", color=colour, markersize=7, linewidth=0.8)
    left.set(xlabel="step", ylabel="training loss")
    right.set(xlabel="epoch" if by_epochs else "step", ylabel=what, ylim=(0, None))
    handles = [Line2D([], [], color="0.4", linestyle=line, marker=mark) for line, mark in zip(LINES, MARKS)]
    right.legend(handles[: len(scores)], scores, fontsize=9)
    left.legend(fontsize=9)
    for axes in (left, right):
        axes.grid(alpha=0.25)
    figure.suptitle(title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_whole(Disk(), path, buffer.getvalue())


def _plot_score(axes: Axes, records: Sequence[Record], name: str, per_epoch: int, form: str, **look: Any) -> None:
    flat = [{"step": record["step"], **record["evaluation"]} for record in records if "evaluation" in record]
    steps, values = _column(flat, name)
    axes.plot([step / per_epoch for step in steps], values, form, **look)


def _column(records: Sequence[Record], name: str) -> tuple[list[int], list[float]]:
    """The steps that recorded this value, and its values; what was not finite was recorded as text, and is left out."""
    found = [(int(r["step"]), float(r[name])) for r in records if isinstance(r.get(name), int | float)]
    return [step for step, _ in found], [value for _, value in found]


def _steps_per_epoch(records: Sequence[Record]) -> int:
    """The most steps that one epoch had; 1 where no epoch is recorded."""
    steps: dict[int, set[int]] = {}
    for record in records:
        if "epoch" in record:
            steps.setdefault(int(record["epoch"]), set()).add(int(record["step"]))
    return max((len(found) for found in steps.values()), default=1)
