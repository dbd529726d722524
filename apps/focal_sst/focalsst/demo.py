"""`unbroken demo sonar`: a detector is trained, killed twice and resumed, and compared with one that was not.

Real processes and real SIGKILLs. The twin trains beside the other, with as many threads.
"""

from __future__ import annotations

import os
import shlex
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from focalsst.config import SonarConfig
from focalsst.datasets import build_dataset
from focalsst.metrics import Labels, class_rules, evaluate
from focalsst.picture import FrameView, draw_scenes
from focalsst.recipes import steps_of
from focalsst.results import read_results
from focalsst.samples import write_sample_data
from unbroken import Disk, durable_folder, open_ordinary, read_whole, write_whole
from unbroken.config import read_config, validate
from unbroken.demo import compare_runs, draw_curves, say_verdict, sessions_of, started, steps_done, train_until, typed
from unbroken.errors import UsageError

Say = Callable[[str], None]
IDLE_CORES_FOR_TWO = 2.8  # with fewer, two threads of a training wait for each other far longer than they work
DATA = Path("data/sonar")  # where the configs look for it
SCORES = ("recall_", "Average predicted", "Car AP", "Pedestrian AP", "bbox AP", "bev  AP", "3d   AP", "aos  AP")
NOT_SHOWN = ("  ignored", *SCORES)
PROGRESS = "epoch: "
OF_A_STEP = (PROGRESS, "acc_iter=", "loss=", "lr=")
SCENES = 4
LEAST_SCORE = 0.3  # of the detections that are drawn


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
    # Two threads for each of the two trainings where four cores are idle now, else one.
    idle = (os.cpu_count() or 1) - (os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0)
    threads = 2 if idle >= IDLE_CORES_FOR_TWO else 1
    stage = Stage(home=home, place=place, size=size, say=say, began_s=time.monotonic(), threads=threads)
    total = _prepare(stage)
    first, second = size.kills
    stage.headline(2, f"Two trainings of {total} steps side by side; this one, the twin, nobody will touch")
    say(f"   $ {typed(stage.command('twin'), threads=stage.threads)}")
    log = stage.log("twin")
    with started(stage.command("twin"), log=log, folder=stage.home, threads=stage.threads) as twin:
        say(f"   it prints into {log}")
        stage.headline(3, f"The other one, and SIGKILL after step {first}, in the middle of an epoch")
        _session(stage, kill_after=first)
        stage.headline(4, f"The same command again, and SIGKILL after step {second}, in the middle of another epoch")
        _session(stage, kill_after=second)
        stage.headline(5, "The same command again, to the end")
        _session(stage, kill_after=total + 1)
        stage.headline(6, "The twin, in one piece")
        code = twin.wait()
    _show(_Lines(log, since=0), say, progress=False)
    if code:
        raise SystemExit(code)
    stage.headline(7, "Compare")
    return finish(stage)


def finish(stage: Stage) -> int:
    """Compare the two runs, say the scores, draw the pictures and list the files; returns the exit code."""
    run, twin, say = stage.run("interrupted"), stage.run("twin"), stage.say
    last = (_last_checkpoint(run), _last_checkpoint(twin))
    holds = "(weights, moments of Adam), schedule, counters, best metric"
    good = compare_runs(run, twin, last=last, holds=holds, say=say)
    one, other = (read_whole(_last_evaluation(each) / "result.npz") for each in (run, twin))
    say(f"   detections of the last evaluation: {'identical' if one == other else 'DIFFERENT'}")
    good = good and one == other
    draw_curves(
        sessions_of(run),
        sessions_of(twin),
        stage.place / "curves.png",
        scores=("mAP_lenient", "mAP"),
        what="validation AP (%)",
        by_epochs=True,
    )
    _show_detections(stage, run)
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
    say_verdict(good, say)
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
    return steps_of(config, size.train, epochs=config.OPTIMIZATION.NUM_EPOCHS)


def _session(stage: Stage, *, kill_after: int) -> None:
    """Run one process of the training, show what it prints, and kill it once it has done so many steps."""
    command = stage.command("interrupted")
    stage.say(f"   $ {typed(command, threads=stage.threads)}")
    run, log = stage.run("interrupted"), stage.log("interrupted")
    lines = _Lines(log, since=log.stat().st_size if log.exists() else 0)
    with started(command, log=log, folder=stage.home, threads=stage.threads) as process:
        code = train_until(process, lambda: steps_done(run) >= kill_after, meanwhile=lambda: _show(lines, stage.say))
    _show(lines, stage.say)
    if code is None:
        stage.say(f"   killed by SIGKILL after step {steps_done(run)}")
    elif code:
        raise SystemExit(code)


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
                words = line.split(", ") if line.startswith(PROGRESS) else [line]
                told = [word for word in words if word.startswith(OF_A_STEP)]  # of a line of progress
                yield ", ".join(told) or line


def _show(lines: _Lines, say: Say, *, progress: bool = True) -> None:
    for line in lines.new():
        if progress or not line.startswith(PROGRESS):
            say(f"   | {line}")


def _show_detections(stage: Stage, run: Path) -> None:
    """Say how good the detector is in a table of average precisions, and draw what it finds in a few frames.

    The table has R40 in percent, seen from above (BEV) and in space (3-D).
    """
    config = validate(SonarConfig, read_config(stage.home / stage.config)).value
    frames = build_dataset(config, stage.home / DATA, training=False)
    detections = read_results(_last_evaluation(run)).detections
    known = [frames.annotation(index) for index in range(len(frames))]
    labels = [Labels(frame_id=each.frame, names=each.names, boxes_N7=each.boxes) for each in known]
    rules = class_rules(config.class_names, config.map_class_to_kitti)
    scores = evaluate(labels, detections, rules, recall_overlaps=config.MODEL.POST_PROCESSING.RECALL_THRESH_LIST)
    say = stage.say
    say(f"\n   Average precision on {scores.frames} validation frames (R40, %; a match overlaps by more than IoU):")
    say("                         lenient                  strict")
    say("             objects   IoU    BEV    3-D        IoU    BEV    3-D")
    for each in scores.classes:
        lenient, strict = (
            f"  {group.thresholds.box:>5.2f}{group.R40.bev:>7.1f}{group.R40.box:>7.1f}"
            for group in (each.lenient, each.strict)
        )
        say(f"   {each.rule.name:<10}{each.objects:>7}{lenient}   {strict}")
    say(f"   mean, 3-D {scores.mAP_lenient:>28.1f}{scores.mAP:>24.1f}")
    # Frames of different sequences, those with the most objects first in each stretch of the validation part.
    found, views = {each.frame_id: each for each in detections}, []
    for stretch in np.array_split(np.arange(len(frames)), min(SCENES, len(frames))):
        index = max(stretch.tolist(), key=lambda number: len(labels[number].names))
        points, truth = frames.sample(index, np.random.default_rng(0)).points.numpy(), labels[index]
        views.append(FrameView(points=points, truth=truth, detections=found[truth.frame_id]))
    draw_scenes(views, stage.place / "scenes.png", least_score=LEAST_SCORE)


def _last_checkpoint(run: Path) -> Path:
    return max((run / "ckpt").glob("checkpoint_epoch_*.pth"), key=_epoch)


def _last_evaluation(run: Path) -> Path:
    last = max((run / "eval/eval_with_train").glob("epoch_*"), key=_epoch)
    return next(path.parent for path in last.glob("*/result.json"))


def _epoch(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])
