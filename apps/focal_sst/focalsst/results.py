"""What an evaluation leaves behind: scores as text and by name, and files of them and of its detections.

Texts and names are those of KITTI's tools and OpenPCDet's logs. The files are for anything to read, and no pickles.
`result.npz` holds `frame_id` (F), and per detection `box_frame` (index into frame_id), `box_name`, `box7` (M, 7) and
`score`, best first within a frame. `final_result/data/<frame>.txt` has the same as text, one detection per line:
name x y z dx dy dz heading score. `result.json` holds the scores by name and the settings they were made with; it is
written last, so where it stands the rest is complete.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from focalsst.dataset.arrays import arrays_by_frame, load_arrays, write_arrays
from focalsst.dataset.splits import SAFE
from focalsst.metrics import Detections, Scores
from unbroken import Disk, durable_folder, is_ordinary, read_json, write_whole
from unbroken.errors import DamagedFile, NewerFormat, UsageError

_DIFFICULTIES = ("easy", "moderate", "hard")  # a sonar's objects have no such grades: three times the same
_MEASURES = {"3d": "box", "bev": "bev", "image": "image", "aos": "aos"}  # what counts most comes first
DETECTIONS, SCORES, TEXTS = "result.npz", "result.json", Path("final_result") / "data"
ARRAYS: Final = ("frame_id", "box_frame", "box_name", "box7", "score")
FORMAT: Final = "focalsst result "
VERSION: Final = 1
EVALUATE_AGAIN: Final = "Evaluate the checkpoint again."


def report(scores: Scores) -> str:
    """The recalls and how many boxes a frame has, then blocks of average precisions for each class.

    Recalls are of regions, of which a one-stage detector proposes none, and of boxes. A class has R11 and R40 at the
    strict thresholds, then at the lenient ones.
    """
    lines: list[str] = []
    for overlap, recall in scores.recall.items():
        lines += [f"recall_roi_{overlap}: {0.0:.6f}", f"recall_rcnn_{overlap}: {recall:.6f}"]
    mean = scores.detections / max(scores.frames, 1)
    lines.append(f"Average predicted number of objects({scores.frames} samples): {mean:.3f}")
    for of_class in scores.classes:
        for group in (of_class.strict, of_class.lenient):
            at = f"{group.thresholds.image:.2f}, {group.thresholds.bev:.2f}, {group.thresholds.box:.2f}"
            for name, found in (("AP", group.R11), ("AP_R40", group.R40)):
                lines.append(f"{of_class.rule.kitti_name} {name}@{at}:")
                rows = [("bbox AP", found.image, 4), ("bev  AP", found.bev, 4), ("3d   AP", found.box, 4)]
                for label, value, digits in (*rows, ("aos  AP", found.aos, 2)):
                    lines.append(f"{label}:{', '.join([f'{value:.{digits}f}'] * len(_DIFFICULTIES))}")
    return "\n".join(lines)


def named(scores: Scores) -> dict[str, float]:
    """The numbers for curves and for the choice of the best checkpoint; of precisions the strict R40 only."""
    found = {"mAP": scores.mAP, "mAP_lenient": scores.mAP_lenient}
    for difficulty in _DIFFICULTIES:
        for measure, part in _MEASURES.items():
            for of_class in scores.classes:
                name = of_class.rule.kitti_name
                found[f"{name}_{measure}/{difficulty}_R40"] = getattr(of_class.strict.R40, part)
    for overlap, recall in scores.recall.items():
        found |= {f"recall/roi_{overlap}": 0.0, f"recall/rcnn_{overlap}": recall}
    for of_class in scores.classes:
        found |= {f"recall/{of_class.rule.name}_{overlap}": recall for overlap, recall in of_class.recall.items()}
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """One evaluation: scores by name (percent, or shares for recalls), its settings, and all detections."""

    scores: Mapping[str, float]
    settings: Mapping[str, Any]
    detections: tuple[Detections, ...]


def write_results(
    folder: Path,
    detections: Sequence[Detections],
    scores: Scores,
    *,
    settings: Mapping[str, Any],
    save_to_file: bool = False,
) -> None:
    """Write one evaluation into its folder, the texts only with `save_to_file`; what was there is replaced."""
    write_detections(folder / DETECTIONS, detections)
    if save_to_file:
        write_texts(folder / TEXTS, detections)
    write_scores(folder / SCORES, named(scores), settings=settings)


def read_results(folder: Path) -> Results:
    """Read one evaluation; raises `UsageError` if there is none, `DamagedFile` if it is not what it should be."""
    scores, settings = read_scores(folder / SCORES)
    return Results(scores=scores, settings=settings, detections=read_detections(folder / DETECTIONS))


def write_detections(path: Path, detections: Sequence[Detections]) -> int:
    """Write the detections of each frame once; the same ones give the same bytes. Returns the size in bytes."""
    ids = [found.frame_id for found in detections]
    if len(set(ids)) < len(ids):
        raise UsageError(path, "a frame has detections twice", expected="each frame once", found=_twice(ids))
    arrays = arrays_by_frame(ids, [found.names for found in detections], [found.boxes_N7 for found in detections])
    arrays["score"] = np.concatenate([found.scores_N for found in detections] or [np.zeros(0, np.float32)])
    durable_folder(Disk(), path.parent)
    return write_arrays(path, arrays)


def read_detections(path: Path) -> tuple[Detections, ...]:
    """Read what `write_detections` wrote, bit for bit."""
    _require_file(path)
    arrays = load_arrays(path, ARRAYS, what="the detections", do=EVALUATE_AGAIN)
    _check(path, arrays)
    frames, owner, names, boxes, scores = (arrays[name] for name in ARRAYS)
    cuts = np.searchsorted(owner, np.arange(1, len(frames)))
    groups = np.split(np.arange(len(owner)), cuts) if len(frames) else []
    return tuple(
        Detections(frame_id=str(frame), names=names[rows].tolist(), boxes_N7=boxes[rows], scores_N=scores[rows])
        for frame, rows in zip(frames, groups, strict=True)
    )


def write_texts(folder: Path, detections: Sequence[Detections]) -> int:
    """Write `<frame>.txt` for each frame, an empty one where nothing was found; returns how many there are."""
    durable_folder(Disk(), folder)  # it is there where nothing was found as well
    for found in detections:
        if not SAFE.fullmatch(found.frame_id):
            raise UsageError(folder, "this id of a frame cannot name a file", found=repr(found.frame_id))
        lines = [
            f"{name} {' '.join(f'{number:.4f}' for number in box)} {score:.6f}\n"
            for name, box, score in zip(found.names, found.boxes_N7.tolist(), found.scores_N.tolist(), strict=True)
        ]
        write_whole(Disk(), folder / f"{found.frame_id}.txt", "".join(lines).encode())
    return len(detections)


def write_scores(path: Path, scores: Mapping[str, float], *, settings: Mapping[str, Any]) -> None:
    """Write scores by name, and what they were made with: plain values, as json has them."""
    content = {"format": f"{FORMAT}{VERSION}", "scores": dict(scores), "settings": dict(settings)}
    durable_folder(Disk(), path.parent)
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(Disk(), path, text.encode())


def read_scores(path: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Read scores by name, and their settings."""
    _require_file(path)
    try:
        content = read_json(path)
    except (OSError, ValueError) as fault:
        raise DamagedFile(path, "the scores cannot be read", found=fault, do=EVALUATE_AGAIN) from fault
    match content:
        case {"format": str(form), **rest} if form.startswith(FORMAT) and form != f"{FORMAT}{VERSION}":
            raise NewerFormat(path, "the scores have a newer form", expected=f"{FORMAT}{VERSION}", found=form)
        case {"format": str(form), "scores": dict(scores), "settings": dict(settings), **rest} if (
            form.startswith(FORMAT) and not rest and all(type(value) in (int, float) for value in scores.values())
        ):
            return scores, settings
    found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
    raise _foreign(path, "format, scores and settings, each score a number", found or "nothing")


def _check(path: Path, arrays: Mapping[str, Any]) -> None:
    """Refuse arrays that are no detections: their types, their lengths, their order, their numbers."""
    frames, owner, names, boxes, scores = (arrays[name] for name in ARRAYS)
    kinds = "".join(array.dtype.kind for array in (frames, owner, names, boxes, scores))
    if kinds != "UiUff":
        raise _foreign(path, "text, whole numbers, text, numbers and numbers", [str(a.dtype) for a in arrays.values()])
    shapes = [array.shape for array in (owner, names, boxes, scores)]
    count = len(scores) if scores.ndim == 1 else -1
    if frames.ndim != 1 or shapes != [(count,), (count,), (count, 7), (count,)]:
        raise _foreign(path, "one frame, one name, seven numbers and one score per box", shapes)
    if count and not (owner[0] >= 0 and owner[-1] < len(frames) and (np.diff(owner) >= 0).all()):
        raise _foreign(path, f"box_frame rising within 0..{len(frames) - 1}", f"{owner.min()}..{owner.max()}")
    if len(set(frames.tolist())) < len(frames):
        raise _foreign(path, "each frame once", _twice(frames.tolist()))
    if not np.isfinite(scores).all():
        raise _foreign(path, "finite scores", "one that is not")


def _twice(ids: Sequence[str]) -> str:
    return next(frame for place, frame in enumerate(ids) if frame in ids[:place])


def _require_file(path: Path) -> None:
    if not is_ordinary(path):
        raise UsageError(path, "there is no such result of an evaluation", do="Check the folder, or evaluate first.")


def _foreign(path: Path, expected: str, found: object) -> DamagedFile:
    return DamagedFile(path, "the result is of another form", expected=expected, found=found, do=EVALUATE_AGAIN)
