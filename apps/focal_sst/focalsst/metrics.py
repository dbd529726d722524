"""How good the detections are: KITTI's average precision per class, and recall.

Words: a *match* gives a true object a detection of its class that overlaps it by more than a threshold. A *measure*
is one way to overlap: `image` (KITTI's image boxes, which a sonar has none of: any two objects of a frame overlap,
so it tells presence only), `bev` (footprints), `box` (in space), `aos` (image matches, weighted by heading). A
*group* of thresholds is strict or lenient. R11 and R40 are the average precisions at 11 and at 40 recalls, in
percent. Recalls that no score reaches count 0, so a class with n < 41 objects reaches at most R40 = 2.5 * (n - 1).
Matches are counted as whole numbers, everything else is float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focalsst.geometry import Floats, iou_3d_pairs, iou_bev_pairs
from unbroken.errors import ConfigError, UsageError

_SAMPLES = 41  # recalls 0, 1/40, ..., 1
RECALL_OVERLAPS = (0.3, 0.5, 0.7)


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """The true objects of one frame; boxes (N, 7)."""

    frame_id: str
    names: Sequence[str]
    boxes_N7: NDArray[np.floating[Any]]

    def __post_init__(self) -> None:
        _check_rows(self.frame_id, len(self.names), boxes=(self.boxes_N7, (7,)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """What was found in one frame; boxes (N, 7), scores (N)."""

    frame_id: str
    names: Sequence[str]
    boxes_N7: NDArray[np.floating[Any]]
    scores_N: NDArray[np.floating[Any]]

    def __post_init__(self) -> None:
        _check_rows(self.frame_id, len(self.names), boxes=(self.boxes_N7, (7,)), scores=(self.scores_N, ()))


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """A match overlaps by more than this; aos goes with image."""

    image: float
    bev: float
    box: float


@dataclass(frozen=True, kw_only=True)
class ClassRule:
    """How one class is judged: its name in the data, KITTI's name for it in reports, and its two groups."""

    name: str
    kitti_name: str
    strict: Thresholds
    lenient: Thresholds


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Average precision in percent by each measure."""

    image: float
    bev: float
    box: float
    aos: float


@dataclass(frozen=True, kw_only=True)
class GroupScores:
    """The scores of one class at one group of thresholds."""

    thresholds: Thresholds
    R11: Precision
    R40: Precision


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """The scores of one class; `recall` of its objects by its own detections, by overlap in space."""

    rule: ClassRule
    objects: int
    detections: int
    strict: GroupScores
    lenient: GroupScores
    recall: Mapping[float, float]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Everything about a set of frames; `recall` lets a detection of any class find an object."""

    classes: tuple[ClassScores, ...]
    recall: Mapping[float, float]
    frames: int
    detections: int

    @property
    def mAP(self) -> float:
        """Mean over classes of strict R40 in space: the number that the best checkpoint is chosen by."""
        return sum(scores.strict.R40.box for scores in self.classes) / len(self.classes)

    @property
    def mAP_lenient(self) -> float:
        """The same at the lenient thresholds, which short trainings can reach."""
        return sum(scores.lenient.R40.box for scores in self.classes) / len(self.classes)


_PERSON = (Thresholds(image=0.5, bev=0.5, box=0.5), Thresholds(image=0.5, bev=0.25, box=0.25))
_KITTI = {
    "Car": (Thresholds(image=0.7, bev=0.7, box=0.7), Thresholds(image=0.7, bev=0.5, box=0.5)),
    "Pedestrian": _PERSON,
    "Cyclist": _PERSON,
}


def class_rules(class_names: Sequence[str], map_class_to_kitti: Mapping[str, str]) -> tuple[ClassRule, ...]:
    """The rules of a config's classes; raises `ConfigError` unless each has a KITTI class of its own."""
    kitti_names = [map_class_to_kitti.get(name, "") for name in class_names]
    if not class_names or not set(kitti_names) <= set(_KITTI) or len(set(kitti_names)) < len(kitti_names):
        raise ConfigError(
            "DATA_CONFIG.MAP_CLASS_TO_KITTI",
            "thresholds cannot be told for every class",
            expected=f"for each of {list(class_names)} another one of {sorted(_KITTI)}",
            found=dict(map_class_to_kitti),
        )
    return tuple(
        ClassRule(name=name, kitti_name=kitti, strict=_KITTI[kitti][0], lenient=_KITTI[kitti][1])
        for name, kitti in zip(class_names, kitti_names)
    )


def evaluate(
    labels: Sequence[Labels],
    detections: Sequence[Detections],
    rules: Sequence[ClassRule],
    *,
    recall_overlaps: Sequence[float] = RECALL_OVERLAPS,
) -> Scores:
    """Judge detections by labels; frames are paired by id, and objects of other classes count nowhere.

    Raises `UsageError` unless both sides have the same frames, each once.
    """
    pairs = _paired(labels, detections)
    names = [rule.name for rule in rules]
    anything = _Overlaps.of([(_own(truth, names), found) for truth, found in pairs])
    return Scores(
        classes=tuple(_class_scores(pairs, rule, recall_overlaps) for rule in rules),
        recall=anything.recall(recall_overlaps),
        frames=len(pairs),
        detections=sum(len(found.names) for _, found in pairs),
    )


def _class_scores(
    pairs: Sequence[tuple[Labels, Detections]], rule: ClassRule, recall_overlaps: Sequence[float]
) -> ClassScores:
    overlaps = _Overlaps.of([(_own(truth, [rule.name]), _own(found, [rule.name])) for truth, found in pairs])
    return ClassScores(
        rule=rule,
        objects=overlaps.objects,
        detections=int(np.isfinite(overlaps.score_FD).sum()),
        strict=overlaps.group(rule.strict),
        lenient=overlaps.group(rule.lenient),
        recall=overlaps.recall(recall_overlaps),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Overlaps:
    """Objects and detections of all frames side by side: F frames, at most G objects and D detections in one.

    Places without an object or a detection have overlap -1, score -inf and never match.
    """

    image_FGD: Floats
    bev_FGD: Floats
    box_FGD: Floats
    alike_FGD: Floats  # (1 + cos of the difference in viewing angle) / 2
    score_FD: Floats
    objects: int

    @classmethod
    def of(cls, pairs: Sequence[tuple[Labels, Detections]]) -> _Overlaps:
        frames = len(pairs)
        most_objects = max((len(truth.names) for truth, _ in pairs), default=0)
        most_found = max((len(found.names) for _, found in pairs), default=0)
        truth_FG7, true_FG = np.zeros((frames, most_objects, 7)), np.zeros((frames, most_objects), dtype=bool)
        found_FD7, score_FD = np.zeros((frames, most_found, 7)), np.full((frames, most_found), -np.inf)
        for f, (truth, found) in enumerate(pairs):
            truth_FG7[f, : len(truth.names)], true_FG[f, : len(truth.names)] = truth.boxes_N7, True
            found_FD7[f, : len(found.names)], score_FD[f, : len(found.names)] = found.boxes_N7, found.scores_N
        place_P = np.nonzero(true_FG[:, :, None] & np.isfinite(score_FD)[:, None])
        a, b = truth_FG7[place_P[0], place_P[1]], found_FD7[place_P[0], place_P[2]]

        def spread(values_P: Floats | float) -> Floats:
            everywhere = np.full((frames, most_objects, most_found), -1.0)
            everywhere[place_P] = values_P
            return everywhere

        return cls(
            image_FGD=spread(1.0),
            bev_FGD=spread(iou_bev_pairs(a, b)),
            box_FGD=spread(iou_3d_pairs(a, b)),
            alike_FGD=spread((1 + _cos_between(a, b)) / 2),
            score_FD=score_FD,
            objects=int(true_FG.sum()),
        )

    def recall(self, overlaps: Sequence[float]) -> dict[float, float]:
        """Share of the objects that some detection overlaps by more than each; 0 without objects."""
        best_FG = self.box_FGD.max(axis=2, initial=-1.0)
        return {overlap: int((best_FG > overlap).sum()) / max(self.objects, 1) for overlap in overlaps}

    def group(self, thresholds: Thresholds) -> GroupScores:
        """R11 and R40 at one group of thresholds."""
        image, alike = self._curves(self.image_FGD, thresholds.image)
        bev, _ = self._curves(self.bev_FGD, thresholds.bev)
        box, _ = self._curves(self.box_FGD, thresholds.box)
        return GroupScores(
            thresholds=thresholds,
            R11=Precision(image=_r11(image), bev=_r11(bev), box=_r11(box), aos=_r11(alike)),
            R40=Precision(image=_r40(image), bev=_r40(bev), box=_r40(box), aos=_r40(alike)),
        )

    def _curves(self, overlap_FGD: Floats, above: float) -> tuple[Floats, Floats]:
        """Precision, and precision weighted by likeness of heading, at the recalls 0, 1/40, ..., 1."""
        precision, alike = np.zeros(_SAMPLES), np.zeros(_SAMPLES)
        matching_FGD = overlap_FGD > above
        scores = [self.score_FD[f, d] for f, _, d in _matches(matching_FGD, preference=self.score_FD[:, None])]
        matched_scores = np.concatenate(scores) if scores else np.zeros(0)
        for i, least in enumerate(_score_samples(matched_scores, self.objects)):
            counted_FD = self.score_FD >= least
            found, likeness = 0, 0.0
            for f, g, d in _matches(matching_FGD & counted_FD[:, None], preference=overlap_FGD):
                found += len(f)
                likeness += float(self.alike_FGD[f, g, d].sum())
            claimed = int(counted_FD.sum())  # matched or false: every detection that is counted
            precision[i], alike[i] = found / claimed, likeness / claimed
        return _never_rising(precision), _never_rising(alike)


Match = tuple[NDArray[np.intp], int, NDArray[np.intp]]


def _matches(eligible_FGD: NDArray[np.bool_], *, preference: Floats) -> Iterator[Match]:
    """Object by object, in all frames at once: frames, the object's place, and the detection it takes in each.

    An object takes the eligible detection that it prefers among those not taken, the first of equals.
    """
    frames, most_objects, most_found = eligible_FGD.shape
    if most_found == 0:
        return
    free_FD = np.ones((frames, most_found), dtype=bool)
    preference_FGD = np.broadcast_to(preference, eligible_FGD.shape)
    for g in range(most_objects):
        possible_FD = eligible_FGD[:, g] & free_FD
        (f,) = np.nonzero(possible_FD.any(axis=1))
        d = np.where(possible_FD[f], preference_FGD[f, g], -np.inf).argmax(axis=1)
        free_FD[f, d] = False
        yield f, g, d


def _score_samples(matched_scores: Floats, objects: int) -> list[float]:
    """Scores of matches, descending, at which recall comes closest to 0, 1/40, ..., 1: at most 41."""
    descending = np.sort(matched_scores)[::-1].tolist()
    samples: list[float] = []
    wanted, last = 0.0, len(descending) - 1
    for i, score in enumerate(descending):
        here, there = (i + 1) / objects, (i + 2) / objects
        if i < last and there - wanted < wanted - here:
            continue
        samples.append(score)
        wanted += 1 / (_SAMPLES - 1.0)
    return samples[:_SAMPLES]


def _never_rising(precision: Floats) -> Floats:
    """At each recall the best precision at this or any higher one."""
    best: Floats = np.maximum.accumulate(precision[::-1])[::-1]
    return best


def _r11(curve: Floats) -> float:
    return float(curve[::4].sum()) / 11 * 100


def _r40(curve: Floats) -> float:
    return float(curve[1:].sum()) / 40 * 100


def _cos_between(a_P7: Floats, b_P7: Floats) -> Floats:
    """Cosine of the difference of the angles at which the sensor sees two boxes; -1 for one that is not finite."""
    angle_P = (np.arctan2(a_P7[:, 1], a_P7[:, 0]) - a_P7[:, 6]) - (np.arctan2(b_P7[:, 1], b_P7[:, 0]) - b_P7[:, 6])
    finite = np.isfinite(angle_P)
    return np.where(finite, np.cos(np.where(finite, angle_P, 0.0)), -1.0)


def _own(frame: Any, names: Sequence[str]) -> Any:
    """The same frame with the objects of these classes only."""
    keep = [i for i, name in enumerate(frame.names) if name in names]
    kept: dict[str, Any] = {"names": [frame.names[i] for i in keep], "boxes_N7": frame.boxes_N7[keep]}
    if isinstance(frame, Detections):
        return Detections(frame_id=frame.frame_id, scores_N=frame.scores_N[keep], **kept)
    return Labels(frame_id=frame.frame_id, **kept)


def _paired(labels: Sequence[Labels], detections: Sequence[Detections]) -> list[tuple[Labels, Detections]]:
    by_id = {found.frame_id: found for found in detections}
    wanted = {truth.frame_id for truth in labels}
    if len(by_id) < len(detections) or len(wanted) < len(labels) or wanted != set(by_id):
        odd = sorted(wanted ^ set(by_id))
        raise UsageError(
            "evaluation",
            "labels and detections are not of the same frames, each once",
            expected=f"{len(labels)} frames on both sides",
            found=f"{len(detections)} detections" + (f", only on one side: {', '.join(odd[:5])}" if odd else ""),
        )
    return [(truth, by_id[truth.frame_id]) for truth in labels]


def _check_rows(frame_id: str, names: int, **arrays: tuple[NDArray[Any], tuple[int, ...]]) -> None:
    for what, (array, tail) in arrays.items():
        if array.shape != (names, *tail):
            raise UsageError(
                f"frame {frame_id}",
                f"names and {what} do not belong together",
                expected=f"{what} of shape {(names, *tail)}",
                found=array.shape,
            )
        if what == "scores" and not np.isfinite(array).all():
            raise UsageError(f"frame {frame_id}", "a score is not a number", expected="finite scores", found=array)
