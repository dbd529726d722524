"""The data set: frames of one split below a data root, in the layout of Focal-SST-Sonar, and batches of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from focalsst.dataset.infos import Annotation, read_infos
from focalsst.dataset.points import (
    BINARY,
    TEXT,
    Encoding,
    Floats,
    Points,
    encode_intensity,
    read_points,
    require_encoding,
)
from focalsst.dataset.scene import (
    Augmentation,
    Extent,
    Scene,
    keep_classes,
    mask_boxes,
    mask_points,
    shuffle,
    wrap_heading,
)
from focalsst.dataset.splits import read_image_set
from unbroken import is_ordinary
from unbroken.errors import DamagedFile, UsageError

if TYPE_CHECKING:
    import torch


CLASSES = ("Box", "Diver")
SHOWN = 5  # of a long list, in an error
EVERYWHERE = Extent()


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """One frame as a loader hands it on.

    points float32 (N, 4): x, y, z in metres, encoded intensity. boxes float32 (M, 8): x, y, z, dx, dy, dz, heading,
    and the class from 1 on. Without objects M is 0.
    """

    points: torch.Tensor
    boxes: torch.Tensor
    name: str


class SonarFolder:
    """Frames listed in `ImageSets/<split>.txt`, with points in `points_binary/` or `points/` and infos beside them.

    `infos` are annotations, or name a file of them below the root; None if nothing is known of the objects. While
    `training`, points are augmented and shuffled and boxes outside the range are dropped; otherwise every box is kept
    for evaluation.
    A frame that keeps no object is a sample like any other; one without points in the extent is damaged, and so is one
    with an object of a class that is neither in `classes` nor of the recordings. `infos_from` is for such errors, and
    `advice` ends them. With `gaps`, frames may lack their file of points: they are damaged when it is their turn.
    """

    def __init__(
        self,
        *,
        root: Path | str,
        split: str,
        infos: Sequence[Annotation] | str | None,
        training: bool,
        classes: Sequence[str] = CLASSES,
        extent: Extent = EVERYWHERE,
        augmentations: Sequence[Augmentation] = (),
        intensity: Encoding = "standard",
        binary: bool = True,
        mask_z: bool = True,
        infos_from: Path | None = None,
        advice: str = "",
        gaps: bool = False,
    ) -> None:
        require_encoding(intensity)
        self.root, self.classes, self.extent = Path(root), tuple(classes), extent
        self.training, self.augmentations = training, tuple(augmentations)
        self.split, self.names = split, read_image_set(self.root, split)
        self.intensity: Encoding = intensity
        self._mask_z, self._advice = mask_z, advice
        self.infos_from = infos_from or (self.root / infos if isinstance(infos, str) else self.root)
        self._folder, self._suffix = BINARY if binary else TEXT
        known = read_infos(self.root / infos) if isinstance(infos, str) else infos
        self.has_infos = known is not None
        by_frame = {annotation.frame: annotation for annotation in known or ()}
        unknown = [frame for frame in self.names if frame not in by_frame]
        if known is not None and unknown:  # more than the list has are infos of a whole, of which it names a part
            extra = sorted(set(by_frame) - set(self.names))
            counts = f"{len(unknown)} missing ({_few(unknown)}), {len(extra)} more ({_few(extra)})"
            raise UsageError(
                self.infos_from,
                "the infos are of another split",
                expected=f"the {len(self.names)} frames of ImageSets/{split}.txt",
                found=f"{len(by_frame)} frames, {counts}",
                do="Take the list and the infos that belong together, or correct DATA_SPLIT and INFO_PATH.",
            )
        nothing = np.zeros((0, 7), np.float32)
        self._annotations = tuple(
            by_frame.get(frame) or Annotation(frame=frame, names=(), boxes=nothing) for frame in self.names
        )
        self.unlisted = tuple(sorted({annotation.frame for annotation in known or ()} - set(self.names)))
        folder = self.root / self._folder
        present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        missing = [frame for frame in self.names if f"{frame}{self._suffix}" not in present]
        if missing and not (gaps and len(missing) < len(self.names)):
            # What lies there instead, where not one file has the right name, are perhaps the points of another program.
            endings = sorted({Path(name).suffix or "no suffix" for name in present})
            others = f", but files ending in {_few(endings)}" if endings and self._suffix not in endings else ""
            again = f"Copy them from their source, or check the data root. {advice}".strip()
            in_text = binary and (self.root / TEXT[0]).is_dir()
            raise UsageError(
                folder,
                f"{len(missing)} of {len(self.names)} frames have no file of points",
                expected=f"<id>{self._suffix} for every id of the split",
                found=f"none for {_few(missing)}{others}",
                do=f"Convert the text files once: python convert.py points {self.root}" if in_text else again,
            )

    def __len__(self) -> int:
        return len(self.names)

    def annotation(self, index: int) -> Annotation:
        """Give what the infos say about a frame, of all classes."""
        return self._annotations[index]

    def scene(self, index: int) -> Scene:
        """Load a frame with the objects of the data set's classes, without any change."""
        known = self._annotations[index]
        points = read_points(self.path(index))[:, :4]
        points[:, 3] = self.encoded(points[:, 3])
        return keep_classes(Scene(points=points, names=known.names, boxes=known.boxes), self.classes)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Load a frame, augment and mask it; every random draw comes from `rng`. Raises DamagedFile."""
        return pack(self.prepared(index, rng), self.classes, self.names[index])

    def prepared(self, index: int, rng: np.random.Generator) -> Scene:
        """The same before it becomes tensors."""
        try:
            self.require_known_classes(index)
            scene = self.scene(index)
            if not len(mask_points(scene, self.extent, mask_z=self._mask_z).points):
                xyz = scene.points[:, :3]
                raise DamagedFile(
                    self.path(index),
                    f"not one of the {len(xyz)} points lies in the range",
                    expected=f"points within {list(self.extent.low)} to {list(self.extent.high)} m",
                    found=f"{np.round(xyz.min(axis=0), 2).tolist()} to {np.round(xyz.max(axis=0), 2).tolist()} m",
                    do="Look at the file (x forward, y left, z up, in metres), or at POINT_CLOUD_RANGE.",
                )
            for augment in self.augmentations if self.training else ():
                scene = augment(scene, rng)
        except DamagedFile as error:
            error.do = " ".join(words for words in (error.do, self._advice) if words)
            raise
        if not self.training:
            return mask_points(scene, self.extent, mask_z=self._mask_z)
        scene = mask_points(keep_classes(scene, self.classes), self.extent, mask_z=self._mask_z)
        return shuffle(mask_boxes(scene, self.extent), rng)

    def require_known_classes(self, index: int) -> None:
        """Raise DamagedFile if a frame has an object of a class that nobody knows: it would be lost in silence."""
        known = self._annotations[index]
        strange = sorted(set(known.names) - {*self.classes, *CLASSES})
        if strange:
            near = next((name for name in (*self.classes, *CLASSES) if name.casefold() == strange[0].casefold()), "")
            meant = f"Names are told apart by their letters' case: write {near}." if near else ""
            raise DamagedFile(
                self.infos_from,
                f"frame {known.frame} has an object of an unknown class",
                expected=" or ".join(dict.fromkeys((*self.classes, *CLASSES))),
                found=", ".join(map(repr, strange)),
                do=meant or "Correct the name in the infos, or add the class to CLASS_NAMES.",
            )

    def encoded(self, raw: Floats) -> Points:
        """Turn raw intensities into what the network sees."""
        return encode_intensity(raw, self.intensity)

    def path(self, index: int) -> Path:
        """The file of points of a frame by its place."""
        return self.path_of(self.names[index])

    def path_of(self, frame: str) -> Path:
        """The file of points of a frame by its id."""
        return self.root / self._folder / f"{frame}{self._suffix}"

    def fingerprint(self) -> str:
        """Hash the ids and byte sizes of the frames and all that is known about them (sha256, hex).

        Times and absolute paths stay out of it: both change when the same data is attached elsewhere.
        """
        digest = hashlib.sha256("\0".join(self.classes).encode(errors="surrogateescape"))
        for known in self._annotations:
            path = self.path_of(known.frame)
            size_bytes = path.stat().st_size if is_ordinary(path) else 0
            digest.update(f"\n{known.frame}\0{size_bytes}\0{known.names}\0".encode(errors="surrogateescape"))
            digest.update(np.ascontiguousarray(known.boxes, "<f4").tobytes())
        return digest.hexdigest()


def pack(scene: Scene, classes: Sequence[str], name: str) -> Sample:
    """Turn a scene into tensors; the headings end in [-pi, pi)."""
    import torch  # as above

    numbers = np.array([classes.index(kind) + 1 for kind in scene.names], np.float32).reshape(-1, 1)
    boxes = np.concatenate([scene.boxes, numbers], axis=1)
    boxes[:, 6] = wrap_heading(boxes[:, 6])
    return Sample(points=torch.from_numpy(scene.points.copy()), boxes=torch.from_numpy(boxes), name=name)


def _few(frames: Sequence[str]) -> str:
    return ", ".join(frames[:SHOWN]) + (" ..." if len(frames) > SHOWN else "") or "-"


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Samples of one step.

    points float32 (N, 4) of all B samples; owner int64 (N), the sample of each point; boxes float32 (B, M, 8) with
    rows of zeros behind the `counts` int64 (B) real ones; names, one per sample.
    """

    points: torch.Tensor
    owner: torch.Tensor
    boxes: torch.Tensor
    counts: torch.Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device | str) -> Batch:
        """Give the same batch on a device."""
        return Batch(
            points=self.points.to(device),
            owner=self.owner.to(device),
            boxes=self.boxes.to(device),
            counts=self.counts.to(device),
            names=self.names,
        )

    def split(self, parts: int) -> list[Batch]:
        """Divide it in its order into parts of nearly equal size; the points of a sample stay together."""
        from unbroken.train import even_slices  # as below: it loads torch

        parts_of = []
        for piece in even_slices(len(self), parts):
            here = (self.owner >= piece.start) & (self.owner < piece.stop)
            part = Batch(
                points=self.points[here],
                owner=self.owner[here] - piece.start,
                boxes=self.boxes[piece, : int(self.counts[piece].max())],
                counts=self.counts[piece],
                names=self.names[piece],
            )
            parts_of.append(part)
        return parts_of


def collate(samples: Sequence[Sample]) -> Batch:
    """Join samples to a batch; some or all of them may be without objects."""
    import torch  # here, so that frames can be looked at without it

    counts = torch.tensor([len(sample.boxes) for sample in samples])
    lengths = torch.tensor([len(sample.points) for sample in samples])
    boxes = torch.zeros(len(samples), int(counts.max()), 8)
    for row, sample in zip(boxes, samples):
        row[: len(sample.boxes)] = sample.boxes
    return Batch(
        points=torch.cat([sample.points for sample in samples]),
        owner=torch.repeat_interleave(torch.arange(len(samples)), lengths),
        boxes=boxes,
        counts=counts,
        names=tuple(sample.name for sample in samples),
    )
