"""`unbroken demo sonar`: a detector is trained, killed twice and resumed, and compared with one that was not.

Real processes and real SIGKILLs. The twin trains beside the other, with as many threads.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from focalsst.config import SonarConfig
from focalsst.demo_verdict import judge, steps_done
from focalsst.recipes import steps_of
from focalsst.samples import write_sample_data
from unbroken import Disk, durable_folder, open_ordinary, read_whole, write_whole
from unbroken.config import read_config, validate
from unbroken.errors import UsageError

Say = Callable[[str], None]
POLL_S = 0.05
IDLE_CORES_FOR_TWO = 2.8  # with fewer, two threads of a training wait for each other far longer than they work
DATA = Path("data/sonar")  # where the configs look for it
NOT_SHOWN = (
    "  ignored",
    "recall_",
    "Average predicted",
    "Car AP",
    "Pedestrian AP",
    "bbox AP",
    "bev  AP",
    "3d   AP",
    "aos  AP",
)
PROGRESS = "epoch: "
OF_A_STEP = (PROGRESS, "acc_iter=", "loss=", "lr=")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large a story: the config, its frames, and the steps after which the process is killed."""

    model: str = "micro"
    train: int = 240
    val: int = 80
    points: int = 2200
    reach_m: float = 30.0
    kills: tuple[int, int] = (95, 275)  # each in the middle of an epoch
    log_every: int = 30
    eval_every: int = 5  # epochs


FULL = Size()


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Where the story plays: `home` holds configs, data and the folders of all tellings, `place` is this one's."""

    home: Path
    place: Path
    size: Size
    say: Say
    began_s: float
    threads: int  # of each training

    @property
    def config(self) -> Path:
        """The config, as seen from `home`."""
        return config_of(self.size)

    def run(self, name: str) -> Path:
        """The folder of one of the two runs."""
        return self.place / name / "sonar_models" / self.size.model / "default"

    def log(self, name: str) -> Path:
        """What the processes of a run printed."""
        return self.place / f"{name}.txt"

    def command(self, name: str) -> list[str]:
        """The command of a run, as it is typed in `home`."""
        options = ["--output", f"{self.place.name}/{name}", "--workers", "1"]
        options += ["--eval_interval", str(self.size.eval_every), "--logger_iter_interval", str(self.size.log_every)]
        return ["unbroken", "train", "focalsst", self.config.as_posix(), *options]

    def headline(self, number: int, text: str) -> None:
        """Begin a chapter, with the time at which it begins."""
        self.say(f"\n== {number}. {text} [{self.clock()}]")

    def clock(self) -> str:
        """How long the story has been told, in minutes and seconds."""
        minutes, seconds = divmod(int(time.monotonic() - self.began_s), 60)
        return f"{minutes}:{seconds:02d}"


def tell(folder: Path, *, say: Say, size: Size = FULL) -> int:
    """Play the whole story below `folder`; returns 0 when the interrupted run is the twin of the other."""
    home = folder.absolute()
    place = home / datetime.now().astimezone().strftime("%Y%m%d_%H%M%S")
    stage = Stage(home=home, place=place, size=size, say=say, began_s=time.monotonic(), threads=_threads())
    total = _prepare(stage)
    first, second = size.kills
    stage.headline(2, f"Two trainings of {total} steps side by side; this one, the twin, nobody will touch")
    say(f"   $ {_typed(stage, 'twin')}")
    with _process(stage, "twin") as twin:
        say(f"   it prints into {stage.log('twin')}")
        stage.headline(3, f"The other one, and SIGKILL after step {first}, in the middle of an epoch")
        _session(stage, kill_after=first)
        stage.headline(4, f"The same command again, and SIGKILL after step {second}, in the middle of another epoch")
        _session(stage, kill_after=second)
        stage.headline(5, "The same command again, to the end")
        _session(stage, kill_after=total + 1)
        stage.headline(6, "The twin, in one piece")
        code = twin.wait()
    _show(_Lines(stage.log("twin"), since=0), say, progress=False)
    if code:
        raise SystemExit(code)
    stage.headline(7, "Compare")
    return finish(stage)


def finish(stage: Stage) -> int:
    """Compare the two runs, say the scores, draw the pictures and list the files; returns the exit code."""
    run, twin, say = stage.run("interrupted"), stage.run("twin"), stage.say
    good = judge(run, twin, stage.home / stage.config, stage.home / DATA, stage.place, say=say)
    say(f"\n   To look at, below {stage.place}:")
    for path, what in {
        stage.place / "scenes.png": "validation frames with true boxes and detections",
        stage.place / "curves.png": "loss and AP, stitched over the sessions, the twin in grey",
        run: "the run: its config, logs, checkpoints in ckpt/, detections and scores in eval/",
        stage.log("interrupted"): "all that its three processes printed",
        stage.log("twin"): "all that the twin printed",
    }.items():
        say(f"     {path.relative_to(stage.place)!s:<42} {what}")
    say(f"   or: unbroken show {run}")
    say(f"\nVERDICT: the run that was killed twice is {'BIT-IDENTICAL to' if good else 'NOT the same as'} its twin.")
    say(f"({stage.clock()} minutes)")
    return 0 if good else 1


def config_of(size: Size) -> Path:
    """The config of a size, as seen from the folder that holds `cfgs`."""
    return Path("cfgs/sonar_models") / f"{size.model}.yaml"


def shipped() -> Path:
    """The folder that holds `cfgs` as they come: beside this package, or where its wheel puts them."""
    places = [Path(__file__).resolve().parents[1], Path(sysconfig.get_path("data")) / "share/focalsst"]
    found = next((place for place in places if (place / "cfgs").is_dir()), None)
    if found is None:
        raise UsageError("the configs of focalsst", "they are not installed", expected=f"{places[1]}/cfgs")
    return found


def _prepare(stage: Stage) -> int:
    """Write data and configs; returns how many steps the training has."""
    size, source = stage.size, shipped()
    stage.say("== 1. Make data: synthetic sonar frames, no sequence in both parts, and the configs that come with it")
    made = write_sample_data(
        stage.home / DATA, train=size.train, val=size.val, points=size.points, reach_m=size.reach_m
    )
    stage.say(f"   {made['message']}")
    for path in read_config(source / stage.config).sources:
        target = stage.home / path.resolve().relative_to(source)
        durable_folder(Disk(), target.parent)
        write_whole(Disk(), target, read_whole(path))
    durable_folder(Disk(), stage.place)
    stage.say(f"   $ cd {shlex.quote(str(stage.home))}")
    config = validate(SonarConfig, read_config(stage.home / stage.config)).value
    return steps_of(config, size.train, epochs=config.epochs)


def _session(stage: Stage, *, kill_after: int) -> None:
    """Run one process of the training, show what it prints, and kill it once it has done so many steps."""
    stage.say(f"   $ {_typed(stage, 'interrupted')}")
    run, log = stage.run("interrupted"), stage.log("interrupted")
    lines = _Lines(log, since=log.stat().st_size if log.exists() else 0)
    with _process(stage, "interrupted") as process:
        while process.poll() is None and steps_done(run) < kill_after:
            _show(lines, stage.say)
            time.sleep(POLL_S)
        is_killed = process.poll() is None
        process.kill()
        process.wait()
    _show(lines, stage.say)
    if is_killed:
        stage.say(f"   killed by SIGKILL after step {steps_done(run)}")
    elif process.returncode:
        raise SystemExit(process.returncode)


def _threads() -> int:
    """Two for each of the two trainings where four cores are idle now, else one."""
    cores = os.cpu_count() or 1
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return 2 if cores - busy >= IDLE_CORES_FOR_TWO else 1


def _typed(stage: Stage, name: str) -> str:
    return f"OMP_NUM_THREADS={stage.threads} {shlex.join(stage.command(name))}"


@contextmanager
def _process(stage: Stage, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command of the story; it does not outlive the story."""
    words = [sys.executable, "-m", *stage.command(name)]
    inherited = os.environ  # noqa: TID251 - passed on to a child and not looked at
    with stage.log(name).open("ab") as output:
        process = subprocess.Popen(
            words,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=stage.home,
            env={**inherited, "OMP_NUM_THREADS": str(stage.threads)},
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


class _Lines:
    """The lines of a growing file that are for the reader, each of them once, from the byte `since` on."""

    def __init__(self, path: Path, *, since: int) -> None:
        self._path, self._place = path, since

    def new(self) -> Iterator[str]:
        """What has been added since the last call, in whole lines."""
        if not self._path.exists():
            return
        with open_ordinary(self._path) as file:
            file.seek(self._place)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._place += len(whole) + len(newline)
        for line in whole.decode("utf-8", errors="replace").splitlines():
            if line.strip() and not line.startswith(NOT_SHOWN):
                yield _short(line)


def _show(lines: _Lines, say: Say, *, progress: bool = True) -> None:
    for line in lines.new():
        if progress or not line.startswith(PROGRESS):
            say(f"   | {line}")


def _short(line: str) -> str:
    """A line of progress with what tells the story; any other line as it is."""
    if not line.startswith(PROGRESS):
        return line
    return ", ".join(word for word in line.split(", ") if word.startswith(OF_A_STEP))
