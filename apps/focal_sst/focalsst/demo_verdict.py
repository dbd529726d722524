"""The end of the demo: two runs compared bit by bit, the scores of the last evaluation, and two pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from focalsst.config import SonarConfig
from focalsst.dataset.folder import SonarFolder
from focalsst.datasets import build_dataset
from focalsst.metrics import GroupScores, Labels, Scores, class_rules, evaluate
from focalsst.picture import FrameView, draw_curves, draw_scenes
from focalsst.results import Results, read_results
from unbroken import read_steps, read_whole
from unbroken.config import read_config, validate
from unbroken.train import count_tensors, differences, read_checkpoint

Say = Callable[[str], None]
Record = Mapping[str, Any]
SCENES = 4
LEAST_SCORE = 0.3  # of the detections that are drawn


def judge(run: Path, twin: Path, config_path: Path, data: Path, place: Path, *, say: Say) -> bool:
    """Say how the runs compare and how good their detector is, and draw it; True if not a bit differs."""
    good = _same(run, twin, say)
    config = validate(SonarConfig, read_config(config_path)).value
    frames = build_dataset(config, data, training=False)
    results = read_results(_last_evaluation(run))
    _say_scores(_scores(config, frames, results), say)
    draw_curves(_sessions(run), _sessions(twin), place / "curves.png")
    draw_scenes(_views(frames, results), place / "scenes.png", least_score=LEAST_SCORE)
    return good


def steps_done(run: Path) -> int:
    """The last step that the run's record holds."""
    records = _records(run)
    return int(records[-1]["step"]) if records else 0


def _same(run: Path, twin: Path, say: Say) -> bool:
    one_path, other_path = _last_checkpoint(run), _last_checkpoint(twin)
    one, other = read_checkpoint(one_path), read_checkpoint(other_path)
    found = differences(one, other) if one_path.name == other_path.name else ["the names of the checkpoints differ"]
    losses = _losses(run) == _losses(twin)
    detections = _detections(run) == _detections(twin)
    say(f"   {one_path}")
    say(f"   {other_path}")
    say(f"   {count_tensors(one)} tensors (weights, moments of Adam), schedule, counters, best metric:")
    say(f"      {'identical, to the last bit' if not found else f'DIFFERENT, {len(found)} of them'}")
    for text in found[:5]:
        say(f"      {text}")
    say(f"   losses of all {len(_losses(twin))} steps: {'identical' if losses else 'DIFFERENT'}")
    say(f"   detections of the last evaluation: {'identical' if detections else 'DIFFERENT'}")
    return not found and losses and detections


def _scores(config: SonarConfig, frames: SonarFolder, results: Results) -> Scores:
    known = [frames.annotation(index) for index in range(len(frames))]
    labels = [Labels(frame_id=each.frame, names=each.names, boxes_N7=each.boxes) for each in known]
    rules = class_rules(config.class_names, config.map_class_to_kitti)
    return evaluate(labels, results.detections, rules, recall_overlaps=config.recall_thresholds)


def _say_scores(scores: Scores, say: Say) -> None:
    """The table of average precisions: R40 in percent, seen from above (BEV) and in space (3-D)."""
    say(f"\n   Average precision on {scores.frames} validation frames (R40, %; a match overlaps by more than IoU):")
    say("                         lenient                  strict")
    say("             objects   IoU    BEV    3-D        IoU    BEV    3-D")
    for each in scores.classes:
        say(f"   {each.rule.name:<10}{each.objects:>7}{_cells(each.lenient)}   {_cells(each.strict)}")
    say(f"   mean, 3-D {scores.mAP_lenient:>28.1f}{scores.mAP:>24.1f}")


def _cells(group: GroupScores) -> str:
    return f"  {group.thresholds.box:>5.2f}{group.R40.bev:>7.1f}{group.R40.box:>7.1f}"


def _views(frames: SonarFolder, results: Results) -> list[FrameView]:
    """Frames of different sequences, those with the most objects first in each stretch of the validation part."""
    found = {each.frame_id: each for each in results.detections}
    views = []
    for stretch in np.array_split(np.arange(len(frames)), min(SCENES, len(frames))):
        index = max(stretch.tolist(), key=lambda number: len(frames.annotation(number).names))
        known = frames.annotation(index)
        truth = Labels(frame_id=known.frame, names=known.names, boxes_N7=known.boxes)
        points = frames.sample(index, np.random.default_rng(0)).points.numpy()
        views.append(FrameView(points=points, truth=truth, detections=found[known.frame]))
    return views


def _last_checkpoint(run: Path) -> Path:
    return max((run / "ckpt").glob("checkpoint_epoch_*.pth"), key=_epoch)


def _last_evaluation(run: Path) -> Path:
    last = max((run / "eval/eval_with_train").glob("epoch_*"), key=_epoch)
    return next(path.parent for path in last.glob("*/result.json"))


def _epoch(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])


def _detections(run: Path) -> bytes:
    return read_whole(_last_evaluation(run) / "result.npz")


def _losses(run: Path) -> dict[int, float]:
    """The loss of every step, from its last doing."""
    return {line["step"]: line["loss"] for line in _records(run) if "loss" in line}


def _records(run: Path) -> list[Record]:
    return list(read_steps(run / "unbroken" / "metrics.jsonl"))


def _sessions(run: Path) -> Iterator[list[Record]]:
    """The records of each session, in order."""
    found: dict[str, list[Record]] = {}
    for line in _records(run):
        found.setdefault(str(line["session"]), []).append(line)
    yield from found.values()
