"""The data set: frames of one split below a data root, in the layout of Focal-SST-Sonar."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from focalsst.dataset.boxes import Floats, wrap_heading
from focalsst.dataset.infos import Annotation, read_infos
from focalsst.dataset.point_layout import Points
from focalsst.dataset.points import BINARY, TEXT, Encoding, encode_intensity, read_points, require_encoding
from focalsst.dataset.scene import Augmentation, Extent, Scene, keep_classes, mask_boxes, mask_points, shuffle
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
        self._annotations = _fitting(self.names, known, self.infos_from, split)
        self.unlisted = tuple(sorted({annotation.frame for annotation in known or ()} - set(self.names)))
        self._require_points(gaps=gaps)

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
            return self._prepared(index, rng)
        except DamagedFile as error:
            error.do = " ".join(words for words in (error.do, self._advice) if words)
            raise

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

    def _prepared(self, index: int, rng: np.random.Generator) -> Scene:
        self.require_known_classes(index)
        scene = self.scene(index)
        self._require_points_in_extent(index, scene)
        if self.training:
            for augment in self.augmentations:
                scene = augment(scene, rng)
            scene = keep_classes(scene, self.classes)
        scene = mask_points(scene, self.extent, mask_z=self._mask_z)
        if self.training:
            scene = shuffle(mask_boxes(scene, self.extent), rng)
        return scene

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

    def _require_points_in_extent(self, index: int, scene: Scene) -> None:
        if len(mask_points(scene, self.extent, mask_z=self._mask_z).points):
            return
        xyz = scene.points[:, :3]
        raise DamagedFile(
            self.path(index),
            f"not one of the {len(xyz)} points lies in the range",
            expected=f"points within {list(self.extent.low)} to {list(self.extent.high)} m",
            found=f"{np.round(xyz.min(axis=0), 2).tolist()} to {np.round(xyz.max(axis=0), 2).tolist()} m",
            do="Look at the file (x forward, y left, z up, in metres), or at POINT_CLOUD_RANGE.",
        )

    def _require_points(self, *, gaps: bool) -> None:
        folder = self.root / self._folder
        present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        missing = [frame for frame in self.names if f"{frame}{self._suffix}" not in present]
        if missing and not (gaps and len(missing) < len(self.names)):
            raise UsageError(
                folder,
                f"{len(missing)} of {len(self.names)} frames have no file of points",
                expected=f"<id>{self._suffix} for every id of the split",
                found=f"none for {_few(missing)}{_others(present, self._suffix)}",
                do=self._how_to_get_points(),
            )

    def _how_to_get_points(self) -> str:
        if self._suffix == BINARY[1] and (self.root / TEXT[0]).is_dir():
            return f"Convert the text files once: python convert.py points {self.root}"
        again = f"Copy them from their source, or check the data root. {self._advice}"
        return again.strip()


def pack(scene: Scene, classes: Sequence[str], name: str) -> Sample:
    """Turn a scene into tensors; the headings end in [-pi, pi)."""
    import torch  # here, so that frames can be looked at without it

    numbers = np.array([classes.index(kind) + 1 for kind in scene.names], np.float32).reshape(-1, 1)
    boxes = np.concatenate([scene.boxes, numbers], axis=1)
    boxes[:, 6] = wrap_heading(boxes[:, 6])
    return Sample(points=torch.from_numpy(scene.points.copy()), boxes=torch.from_numpy(boxes), name=name)


def _fitting(
    frames: Sequence[str], infos: Sequence[Annotation] | None, source: Path, split: str
) -> tuple[Annotation, ...]:
    """Bring the infos into the order of the split, and complain if they do not know all of its frames."""
    empty = Annotation(frame="", names=(), boxes=np.zeros((0, 7), np.float32))
    if infos is None:
        return tuple(replace(empty, frame=frame) for frame in frames)
    known = {annotation.frame: annotation for annotation in infos}
    missing, extra = [f for f in frames if f not in known], sorted(set(known) - set(frames))
    if missing:  # more than the list has are infos of a whole, of which it names a part
        raise UsageError(
            source,
            "the infos are of another split",
            expected=f"the {len(frames)} frames of ImageSets/{split}.txt",
            found=f"{len(known)} frames, {len(missing)} missing ({_few(missing)}), {len(extra)} more ({_few(extra)})",
            do="Take the list and the infos that belong together, or correct DATA_SPLIT and INFO_PATH.",
        )
    return tuple(known[frame] for frame in frames)


def _others(present: Collection[str], suffix: str) -> str:
    """What lies there instead, where not one file has the right name: perhaps the points of another program."""
    endings = sorted({Path(name).suffix or "no suffix" for name in present})
    return f", but files ending in {_few(endings)}" if endings and suffix not in endings else ""


def _few(frames: Sequence[str]) -> str:
    return ", ".join(frames[:SHOWN]) + (" ..." if len(frames) > SHOWN else "") or "-"
