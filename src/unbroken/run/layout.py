"""The names of a run's files. One layout per guide; the core works with any."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

OWN_FOLDER = "unbroken"  # not hidden: notebook hosts drop dot files
ARCHIVE_FOLDER = "archive"
SCALARS = "vis_data/scalars.json"  # of the run and of each session, as the guide follows it


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Names relative to the run's folder; `keys` says under which top-level key a tracked part is saved."""

    checkpoint_folder: str
    checkpoint_name: str  # with {step}
    weights_name: str  # with {metric} and {step}
    pointer: str
    session_folder: str  # with {session}
    log_name: str  # with {session}, inside the session folder
    keys: Mapping[str, str] = field(default_factory=dict)

    def checkpoints(self, run: Path) -> Path:
        """The folder of the checkpoints."""
        return run / self.checkpoint_folder if self.checkpoint_folder else run

    def checkpoint(self, step: int) -> str:
        """The file name of the checkpoint after `step` steps."""
        return self.checkpoint_name.format(step=step)

    def step_named(self, name: str) -> int | None:
        """The step in a name that this layout writes; None for any other name."""
        for pattern in (self.checkpoint_name, self.weights_name):
            wanted = re.escape(pattern).replace(r"\{step\}", r"(?P<step>\d+)").replace(r"\{metric\}", ".+")
            if (found := re.fullmatch(wanted, name)) is not None:
                return int(found["step"])
        return None

    def weights(self, metric: str, step: int) -> str:
        """The file name of the best weights by `metric`."""
        return self.weights_name.format(metric=re.sub(r"[^\w.-]", "_", metric), step=step)

    def session(self, run: Path, session: str) -> Path:
        """The folder of one session's readable output."""
        return run / self.session_folder.format(session=session)

    def log(self, run: Path, session: str) -> Path:
        """The text log of one session."""
        return self.session(run, session) / self.log_name.format(session=session)


ITERATIONS = Layout(
    checkpoint_folder="",
    checkpoint_name="iter_{step}.pth",
    weights_name="best_{metric}_iter_{step}.pth",
    pointer="latest.pth",
    session_folder="{session}",
    log_name="{session}.log",
    keys={"model": "state_dict", "optimizer": "optimizer", "scheduler": "param_schedulers"},
)


def own(run: Path) -> Path:
    """The folder with what unbroken itself writes about a run."""
    return run / OWN_FOLDER


def manifests(run: Path) -> Path:
    """The folder of the manifests."""
    return own(run) / "manifests"
