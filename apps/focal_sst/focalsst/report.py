"""Scores as text and as named numbers, in the layout and under the names of KITTI's tools and OpenPCDet's logs."""

from __future__ import annotations

from focalsst.metrics import ClassScores, GroupScores, Precision, Scores, Thresholds

_DIFFICULTIES = ("easy", "moderate", "hard")  # a sonar's objects have no such grades: three times the same
_MEASURES = {"3d": "box", "bev": "bev", "image": "image", "aos": "aos"}  # what counts most comes first


def report(scores: Scores) -> str:
    """The recalls, then a block of average precisions for each class."""
    return "\n".join([recall_lines(scores), *(class_lines(of_class) for of_class in scores.classes)])


def recall_lines(scores: Scores) -> str:
    """Recall of regions (a one-stage detector proposes none) and of boxes, and how many boxes a frame has."""
    lines: list[str] = []
    for overlap, recall in scores.recall.items():
        lines += [f"recall_roi_{overlap}: {0.0:.6f}", f"recall_rcnn_{overlap}: {recall:.6f}"]
    mean = scores.detections / max(scores.frames, 1)
    return "\n".join([*lines, f"Average predicted number of objects({scores.frames} samples): {mean:.3f}"])


def class_lines(scores: ClassScores) -> str:
    """R11 and R40 of one class at the strict thresholds, then at the lenient ones."""
    name = scores.rule.kitti_name
    return "\n".join(_group_lines(name, group) for group in (scores.strict, scores.lenient))


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


def _group_lines(name: str, group: GroupScores) -> str:
    return "\n".join(
        [
            f"{name} AP@{_overlaps(group.thresholds)}:",
            *_precision_lines(group.R11),
            f"{name} AP_R40@{_overlaps(group.thresholds)}:",
            *_precision_lines(group.R40),
        ]
    )


def _precision_lines(found: Precision) -> list[str]:
    return [
        f"bbox AP:{_thrice(found.image, 4)}",
        f"bev  AP:{_thrice(found.bev, 4)}",
        f"3d   AP:{_thrice(found.box, 4)}",
        f"aos  AP:{_thrice(found.aos, 2)}",
    ]


def _overlaps(thresholds: Thresholds) -> str:
    return f"{thresholds.image:.2f}, {thresholds.bev:.2f}, {thresholds.box:.2f}"


def _thrice(value: float, digits: int) -> str:
    return ", ".join([f"{value:.{digits}f}"] * len(_DIFFICULTIES))
