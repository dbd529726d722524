"""The names of a run's files. One layout per guide; the core works with any."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from unbroken.checkpoint.sharded import SUFFIX
from unbroken.fields import typed
from unbroken.ids import LeadsOut, place, why_unsafe
from unbroken.run.names import ARCHIVE_FOLDER as ARCHIVE_FOLDER
from unbroken.run.names import BACKUP_LIST as BACKUP_LIST
from unbroken.run.names import CHECKPOINT_FOLDER as CHECKPOINT_FOLDER
from unbroken.run.names import OWN_FOLDER as OWN_FOLDER

# What of a layout becomes part of a path, and what stands in it for a number or a name.
FOLDERS = ("checkpoint_folder", "session_folder", "curves", "evaluation_curves", "predictions")
NAMES = ("checkpoint_name", "rolling_name", "weights_name", "pointer")
FILES = ("log_name", "session_scalars", "run_scalars")
SUFFIXES = (".pth", SUFFIX)  # of the names of checkpoints: files, and folders of shards
LONGEST_METRIC_BYTES = 120  # of a metric's name in that of a file
PLACEHOLDER = re.compile(r"\{(?:step|epoch|metric|session|stamp)\}")

Part = Literal["checkpoint", "rolling", "weights", ""]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the files of a run are called, relative to its folder. An empty name means that there is no such file.

    A save at the end of an epoch, or any save where there is no `rolling_name`, gets a name of its own; the others
    share the rolling name, where each replaces the one before.

    Args:
        checkpoint_folder: Where checkpoints lie; "": in the run's folder itself.
        checkpoint_name: Name of a checkpoint, with {step} or {epoch} in it.
        rolling_name: Name of each save within an epoch.
        weights_name: Name of the best weights, with {metric}, and {step} or {epoch} in it.
        pointer: Link to the newest checkpoint, for people.
        session_folder: Where a session's readable output lies, with {session} in it.
        log_name: Name of a session's log, with {session} or, dashed, {stamp} in it; inside the session folder.
        log_moment: What stands before each line of the log, for strftime.
        session_scalars: File of a session's scalars, inside the session folder.
        run_scalars: File of the scalars of all sessions, in order.
        curves: Folder of TensorBoard's event files, over steps.
        evaluation_curves: The same over epochs, for what is measured at their end.
        predictions: Folder of pictures of what evaluated weights predict, by step.
        keys: Top-level key in a checkpoint under which a tracked part is saved, by its name.
        weights_extra: Which entries that an application adds to a checkpoint are in a weights file too.
    """

    checkpoint_folder: str
    checkpoint_name: str
    rolling_name: str = ""
    weights_name: str
    pointer: str = ""
    session_folder: str = ""
    log_name: str
    log_moment: str = "%Y/%m/%d %H:%M:%S %z - unbroken - INFO - "
    session_scalars: str = ""
    run_scalars: str = ""
    curves: str = ""
    evaluation_curves: str = ""
    predictions: str = "predictions"
    keys: Mapping[str, str] = field(default_factory=dict)
    weights_extra: tuple[str, ...] = ()

    def checkpoints(self, run: Path) -> Path:
        """Return the folder of the checkpoints.

        Args:
            run: The run's folder.
        """
        return run / self.checkpoint_folder if self.checkpoint_folder else run

    def run_of(self, checkpoint: Path) -> Path:
        """Return the run's folder.

        Args:
            checkpoint: Path of one of its checkpoints.
        """
        folder = checkpoint.resolve().parent
        return folder.parent if self.checkpoint_folder and folder.name == self.checkpoint_folder else folder

    def checkpoint(self, *, step: int, epoch: int, milestone: bool, sharded: bool = False) -> str:
        """Return the name of a checkpoint.

        Args:
            step: Optimizer steps done.
            epoch: Whole epochs done.
            milestone: Whether the save ends an epoch, and so gets a name of its own.
            sharded: Whether it is a folder of shards.
        """
        named = self.rolling_name if self.rolling_name and not milestone else self.checkpoint_name
        name = named.format(step=step, epoch=epoch)
        return as_folder(name) if sharded else name

    def writes_after(self, name: str, *, step: int, epoch: int) -> bool:
        """Tell whether a session that goes on from there may write a file of this name.

        Args:
            name: What the file is called.
            step: Optimizer steps done.
            epoch: Whole epochs done.
        Returns:
            True for the rolling name, and for names of later steps or epochs.
        """
        if self.rolling_name and name in (self.rolling_name, as_folder(self.rolling_name)):
            return True
        for pattern in (self.checkpoint_name, as_folder(self.checkpoint_name), self.weights_name):
            wanted = re.escape(pattern).replace(r"\{metric\}", ".+")
            wanted = wanted.replace(r"\{step\}", r"(?P<step>\d+)").replace(r"\{epoch\}", r"(?P<epoch>\d+)")
            if (found := re.fullmatch(wanted, name)) is not None:
                reached = {"step": step, "epoch": epoch}
                return all(int(number) > reached[unit] for unit, number in found.groupdict().items())
        return False

    def part_of(self, name: str) -> tuple[Part, str]:
        """Tell what a file would be if this layout wrote it.

        Args:
            name: What the file is called.
        Returns:
            "checkpoint", "rolling", "weights" or "", and the metric of weights.
        """
        if self.rolling_name and name in (self.rolling_name, as_folder(self.rolling_name)):
            return "rolling", ""
        checkpoints = (self.checkpoint_name, as_folder(self.checkpoint_name))
        patterns: list[tuple[Part, str]] = [
            *(("checkpoint", each) for each in checkpoints),
            ("weights", self.weights_name),
        ]
        for part, pattern in patterns:
            wanted = re.escape(pattern).replace(r"\{metric\}", r"(?P<metric>.+)")
            wanted = re.sub(r"\\\{(?:step|epoch)\\\}", "(?:0|[1-9][0-9]*)", wanted)
            if (found := re.fullmatch(wanted, name)) is not None:
                return part, found.groupdict().get("metric", "")
        return "", ""

    def weights(self, metric: str, *, step: int, epoch: int) -> str:
        """Return the file name of the best weights.

        Args:
            metric: By which they are the best; what no file name may hold becomes `_`.
            step: Optimizer steps done.
            epoch: Whole epochs done.
        """
        named = re.sub(r"[^\w.-]", "_", metric).encode()[:LONGEST_METRIC_BYTES].decode(errors="ignore")
        return self.weights_name.format(metric=named, step=step, epoch=epoch)

    def session(self, run: Path, session: str) -> Path:
        """Return the folder of one session's readable output.

        Args:
            run: The run's folder.
            session: Its name.
        Raises:
            LeadsOut: A recorded session is no name.
        """
        return place(run, self.session_folder.format(session=session)) if self.session_folder else run

    def log(self, run: Path, session: str) -> Path:
        """Return the text log of one session.

        Args:
            run: The run's folder.
            session: Its name.
        Raises:
            LeadsOut: A recorded session is no name.
        """
        name = self.log_name.format(session=session, stamp=session.replace("_", "-"))
        return place(self.session(run, session), name)

    def scalars(self, run: Path, session: str) -> tuple[Path, ...]:
        """Return the files that get a line per logged step: that of the session, and that of the run.

        Args:
            run: The run's folder.
            session: Its name.
        """
        of_session = [self.session(run, session) / self.session_scalars] if self.session_scalars else []
        return (*of_session, *([run / self.run_scalars] if self.run_scalars else []))

    def as_plain(self) -> dict[str, Any]:
        """Return plain values, for the run's record."""
        return asdict(self)

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Layout:
        """Return the layout in a run's record.

        Args:
            data: What `as_plain` gave.
        Raises:
            LeadsOut: A name in it leads out of the run's folder.
            BadField: It is no layout at all, or that of another version.
        """
        for key in (*FOLDERS, *NAMES, *FILES):
            if why := _why_no_part(data.get(key, ""), is_name=key in NAMES):
                raise LeadsOut(f"field layout.{key}: {str(data[key])[:80]!r} {why}")
        return typed(cls, data, "layout")


def as_folder(name: str) -> str:
    """What a checkpoint of this name is called where it is a folder of shards."""
    return str(Path(name).with_suffix(SUFFIX))


def _why_no_part(recorded: object, *, is_name: bool) -> str:
    """What keeps a recorded pattern from being part of a path, as the end of a sentence; "" where nothing does."""
    if recorded == "":
        return ""
    named = PLACEHOLDER.sub("0", recorded) if isinstance(recorded, str) else recorded
    if why := why_unsafe(named):
        return why
    if is_name and "/" in str(named):
        return "is no name of a file"
    return "has braces that stand for nothing" if {"{", "}"} & set(str(named)) else ""


# The layout of MMEngine, by iterations.
ITERATIONS = Layout(
    checkpoint_folder="",
    checkpoint_name="iter_{step}.pth",
    weights_name="best_{metric}_iter_{step}.pth",
    pointer="latest.pth",
    session_folder="{session}",
    log_name="{session}.log",
    session_scalars="vis_data/scalars.json",
    run_scalars="vis_data/scalars.json",
    curves="tensorboard",
    keys={"model": "state_dict", "optimizer": "optimizer", "scheduler": "param_schedulers"},
    weights_extra=("meta",),
)

# The layout of OpenPCDet, by epochs.
EPOCHS = Layout(
    checkpoint_folder=CHECKPOINT_FOLDER,
    checkpoint_name="checkpoint_epoch_{epoch}.pth",
    rolling_name="latest_model.pth",
    weights_name="best_{metric}_epoch_{epoch}.pth",
    log_name="log_train_{stamp}.txt",
    log_moment="%Y-%m-%d %H:%M:%S %z   INFO  ",
    curves="tensorboard",
    evaluation_curves="eval/eval_with_train/tensorboard_val",
    keys={"model": "model_state", "optimizer": "optimizer_state"},
    weights_extra=("epoch", "it", "version"),
)
LAYOUTS = (ITERATIONS, EPOCHS)


def layout_by_files(run: Path) -> Layout:
    """The layout that a folder without a record looks like."""
    with_checkpoints = (layout for layout in LAYOUTS if has_checkpoints(layout.checkpoints(run)))
    return next(with_checkpoints, ITERATIONS)


def has_checkpoints(folder: Path) -> bool:
    """Whether anything in a folder has the name of a checkpoint."""
    return any(any(folder.glob(f"*{suffix}")) for suffix in SUFFIXES)


def own(run: Path) -> Path:
    """The folder with what unbroken itself writes about a run."""
    return run / OWN_FOLDER


def manifests(run: Path) -> Path:
    """The folder of the manifests."""
    return own(run) / "manifests"
