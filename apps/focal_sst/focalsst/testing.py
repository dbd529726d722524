"""The command `test.py`: judge one checkpoint, or all of a run, by the frames of the test part.

Results lie below the run: `eval/epoch_<N>/<split>/<eval_tag>/` of one checkpoint, and of all of them
`eval/eval_all_default/<eval_tag>/epoch_<N>/<split>/`. A checkpoint that was judged before is known by its save, not by
its number, so that a training that was begun anew is judged anew.
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import torch
from rich.console import Console

from focalsst.config import SonarConfig, detector_settings
from focalsst.dataset.folder import SonarFolder, collate
from focalsst.datasets import build_dataset
from focalsst.evaluation import Evaluation, evaluate_split, predict
from focalsst.metrics import Labels
from focalsst.model.detector import Detector, build_detector
from focalsst.original_states import present_name
from focalsst.picture import FrameView, draw_scenes
from focalsst.recipes import DEFAULT_CONFIG, Places, config_of, config_path, count, find_data, places_of, positive
from focalsst.results import SCORES, read_scores
from unbroken import EPOCHS, Disk, OptionParser, add_weights_key, require_launcher, write_whole
from unbroken.errors import UsageError
from unbroken.train import (
    FoundCheckpoint,
    epoch_checkpoints,
    find_checkpoint,
    furthest_checkpoint,
    is_training,
    load_weights,
    one_pass,
    pick_device,
    shown_time,
    this_world,
)

WAIT_S: Final = 10.0
SCENES: Final = "scenes.png"
TIMED_BATCHES, WARM_UP = 20, 3


def parser() -> argparse.ArgumentParser:
    """The options of `test.py`."""
    found = OptionParser(
        prog="test.py",
        description="Judge a checkpoint by the frames of the test part. Without --ckpt: the run's furthest one.",
    )
    found.add_argument("config", type=str, nargs="?", metavar="CONFIG", help="a YAML file; the same as --cfg_file")
    found.add_argument("--cfg_file", type=str, metavar="CONFIG", help=f"default: {DEFAULT_CONFIG.as_posix()}")
    found.add_argument("--extra_tag", "--tag", dest="tag", help="whose run it is (default: default)")
    found.add_argument("--ckpt", type=Path, metavar="FILE", help="the checkpoint to judge, of any origin")
    found.add_argument("--pretrained_model", type=Path, metavar="FILE", help="weights to judge, also incomplete ones")
    add_weights_key(found)
    found.add_argument("--eval_all", action="store_true", help="every checkpoint_epoch_N.pth of the run")
    found.add_argument("--ckpt_dir", type=Path, metavar="DIR", help="where --eval_all looks (default: the run's ckpt)")
    found.add_argument("--start_epoch", type=count, default=0, metavar="N", help="--eval_all: the first one to judge")
    found.add_argument(
        "--max_waiting_mins", type=count, default=30, metavar="N", help="--eval_all: wait for a training that goes on"
    )
    found.add_argument("--eval_tag", default="default", help="name of this evaluation (default: default)")
    found.add_argument("--batch_size", type=positive, metavar="N", help="frames at a time (default: the config's)")
    found.add_argument("--workers", type=count, default=4, metavar="N", help="loader processes")
    found.add_argument("--device", default="auto", metavar="NAME", help="cpu, cuda, cuda:1 (default: cuda if there)")
    found.add_argument("--output", type=Path, metavar="DIR", help="folder of all runs (default: output)")
    found.add_argument(
        "--on-bad-sample", "--on-bad-frame", dest="on_bad", choices=["stop", "skip"], default="stop",
        help="a frame that is unreadable",
    )  # fmt: skip
    found.add_argument("--save_to_file", action="store_true", help="write the detections as text too")
    found.add_argument("--infer_time", action="store_true", help="measure the time of a frame")
    found.add_argument("--scenes", type=count, default=4, metavar="N", help=f"frames drawn in {SCENES}; 0: none")
    found.add_argument(
        "--launcher", choices=["none", "pytorch", "slurm"], default="none",
        help="what started this process, one of several that share the frames: it is found out anyway",
    )  # fmt: skip
    for name in ("--tcp_port", "--local_rank"):
        found.add_argument(name, type=int, default=0, help=argparse.SUPPRESS)
    found.add_argument(
        "--set", dest="set_cfgs", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE",
        help="change config keys, as A.B.C value ...; comes last",
    )  # fmt: skip
    return found


def usage() -> str:
    """The help text."""
    return parser().format_help()


def main(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit code."""
    options = parser().parse_args(list(arguments))
    require_launcher(options.launcher)
    asked = [name for name in ("ckpt", "pretrained_model", "eval_all") if getattr(options, name)]
    if len(asked) > 1:
        words = " and ".join(f"--{name}" for name in asked)
        raise UsageError("test.py", "it is not clear what to judge", expected="one of them", found=words)
    places = places_of(config_path(options), tag=options.tag, output=options.output)
    bench = _Bench(options, places, config_of(places, options).value)
    if options.eval_all:
        bench.judge_all()
    else:
        bench.judge_one()
    bench.world.wait_for_all()  # until all is written
    bench.world.close()
    return 0


class _Bench:
    """Model and frames, built once, and where results go."""

    def __init__(self, options: argparse.Namespace, places: Places, config: SonarConfig) -> None:
        self.options, self.places, self.config, self.world = options, places, config, this_world()
        self.device = pick_device(options.device, deterministic=False)
        self.model: Detector = build_detector(detector_settings(config)).to(self.device)
        self.dataset: SonarFolder = build_dataset(
            config, find_data(config.DATA_CONFIG.DATA_PATH, places), training=False, skip_bad=options.on_bad == "skip"
        )
        self._console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
        self._log: list[str] = []

    @property
    def split(self) -> str:
        """The name of the test part's list of frames."""
        return self.config.DATA_CONFIG.DATA_SPLIT.test

    def say(self, line: str) -> None:
        """Show a line, and keep it for the log; of several processes the first speaks."""
        if self.world.leads:
            self._console.print(line)
        self._log.append(f"{shown_time(datetime.now())}   INFO  {line}")

    def judge_one(self) -> None:
        """Judge the file that was named, or the run's furthest checkpoint."""
        named = self.options.ckpt or self.options.pretrained_model
        if named is None:
            # A training that goes on may save meanwhile: all of several processes judge what the first has found.
            file = find_checkpoint(self.world.tell(furthest_checkpoint(self.places.run, EPOCHS).path), EPOCHS)
            self.say(f"no --ckpt given: the run's furthest checkpoint is {file.path}")
        else:
            file = find_checkpoint(named, EPOCHS)
        name = f"epoch_{file.epoch}" if file.epoch is not None else f"epoch_{_number_in(file.path)}"
        self._judge(file, self.places.run / "eval" / name / self.split / self.options.eval_tag)

    def judge_all(self) -> None:
        """Judge every checkpoint of an epoch, and while the training goes on, those to come."""
        if self.world.size > 1:
            do = "Start it as one process, or judge one file: --ckpt FILE."
            raise UsageError("--eval_all", "it waits for files, and is not shared by several processes", do=do)
        folder = self.options.ckpt_dir or EPOCHS.checkpoints(self.places.run)
        rows: dict[int, Mapping[str, float]] = {}
        waited_s = 0.0
        while True:
            found = {_number_in(path): path for path in epoch_checkpoints(folder, EPOCHS)}
            new = {
                epoch: path
                for epoch, path in found.items()
                if isinstance(epoch, int) and epoch >= self.options.start_epoch and epoch not in rows
            }
            for epoch, path in new.items():
                rows[epoch] = self._judge_once(find_checkpoint(path, EPOCHS))
                waited_s = 0.0
            if new:
                continue
            if not is_training(self.places.run, EPOCHS) or waited_s >= 60 * self.options.max_waiting_mins:
                break
            time.sleep(WAIT_S)
            waited_s += WAIT_S
        if not rows:
            what = f"there is no checkpoint of epoch {self.options.start_epoch} or later"
            raise UsageError(folder, what, do="Train first, or name a folder with --ckpt_dir.")
        self.say("epoch      mAP  lenient")
        for epoch, scores in sorted(rows.items()):
            self.say(f"{epoch:5d}  {scores['mAP']:7.2f}  {scores['mAP_lenient']:7.2f}")

    def _judge_once(self, file: FoundCheckpoint) -> Mapping[str, float]:
        root = self.places.run / "eval/eval_all_default" / self.options.eval_tag
        folder = root / f"epoch_{_number_in(file.path)}" / self.split
        if (folder / SCORES).is_file():
            scores, settings = read_scores(folder / SCORES)
            if file.save and settings.get("save") == file.save:
                self.say(f"{file.path.name} was judged before: {folder}")
                return scores
        return self._judge(file, folder).numbers

    def _judge(self, file: FoundCheckpoint, folder: Path) -> Evaluation:
        self.say(f"load checkpoint from {file.path} ({file.kind}, step {file.step})")
        for line in file.compute_alike():
            self.say(line)
        load_weights(
            self.model,
            file.path,
            present_name,
            strict=self.options.pretrained_model is None,
            say=self.say,
            weights_key=self.options.weights_key,
        )
        found = evaluate_split(
            self.model,
            self.dataset,
            self.config,
            device=self.device,
            workers=self.options.workers,
            say=self.say,
            skip_bad=self.options.on_bad == "skip",
        )
        if not self.world.leads:
            return found
        if self.options.infer_time:
            self.say(_time_of_a_frame(self.model, self.dataset, self.config, self.device))
        settings = {"file": str(file.path), "save": file.save, "step": file.step, "split": self.split}
        found.write(folder, settings=settings, save_to_file=self.options.save_to_file)
        self._draw(found, folder)
        self.say(f"results: {folder}")
        log = folder / f"log_eval_{datetime.now():%Y%m%d-%H%M%S}.txt"
        write_whole(Disk(), log, ("\n".join(self._log) + "\n").encode())
        self._log.clear()
        return found

    def _draw(self, found: Evaluation, folder: Path) -> None:
        """Draw some frames, evenly spread over the split."""
        wanted = min(self.options.scenes, len(found.detections))
        if not wanted:
            return
        detections = found.detections[:: max(len(found.detections) // wanted, 1)][:wanted]
        places = {name: index for index, name in enumerate(self.dataset.names)}
        views = []
        for each in detections:
            index = places[each.frame_id]
            known = self.dataset.annotation(index)
            truth = Labels(frame_id=known.frame, names=known.names, boxes_N7=known.boxes)
            views.append(FrameView(points=self.dataset.scene(index).points, truth=truth, detections=each))
        draw_scenes(views, folder / SCENES, least_score=0.3)


def _number_in(path: Path) -> int | str:
    """The last number in a file's name, as the original tells epochs; `no_number` without one."""
    digits = re.findall(r"\d+", path.stem)
    return int(digits[-1]) if digits else "no_number"


def _time_of_a_frame(model: Detector, dataset: SonarFolder, config: SonarConfig, device: torch.device) -> str:
    """The median over batches, without loading and after a warm-up."""
    times_s: list[float] = []
    batches = one_pass(dataset, batch_size=config.OPTIMIZATION.BATCH_SIZE_PER_GPU, workers=0, collate=collate)
    for number, batch in enumerate(batches):
        if number == TIMED_BATCHES + WARM_UP:
            break
        there = batch.to(device)
        began_s = time.perf_counter()
        predict(model, there, overlap=config.MODEL.DENSE_HEAD.POST_PROCESSING.NMS_CONFIG.NMS_THRESH)
        if number >= WARM_UP:
            times_s.append((time.perf_counter() - began_s) / len(batch))
    if not times_s:
        return f"inference: too few frames to measure (more than {WARM_UP} batches; --batch_size 1 makes more)"
    return f"inference: {1000 * statistics.median(times_s):.1f} ms per frame, median of {len(times_s)} batches"
