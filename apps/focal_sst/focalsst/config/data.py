"""The data: where it lies, which frames are whose, what is done to them, and the one grid that all else follows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import Field

from unbroken.config import Count, Effect, FromZero, Misfit, Positive, Section, Since, built, only

SHAPE, MEANING, DATA, FREE, IGNORED = Effect.SHAPE, Effect.MEANING, Effect.DATA, Effect.FREE, Effect.IGNORED

ClassNumbers = tuple[Annotated[str, Field(pattern=r"^[^:]+:[0-9]+$")], ...]  # "Diver:6"


def _numbers(entries: ClassNumbers) -> dict[str, int]:
    return {name: int(number) for name, _, number in (entry.partition(":") for entry in entries)}


class Prepare(Section):
    """Which objects of the database may be pasted: those with at least so many points, `Class:number`."""

    filter_by_min_points: Annotated[ClassNumbers, DATA] = ()
    filter_by_difficulty: Annotated[Any, IGNORED] = None


class GtSampling(Section):
    """Paste recorded objects, up to `Class:number` of each class; with LIMIT_WHOLE_SCENE those there count."""

    NAME: Annotated[Literal["gt_sampling"], DATA] = "gt_sampling"
    SAMPLE_GROUPS: Annotated[ClassNumbers, DATA]
    PREPARE: Prepare = Prepare()
    LIMIT_WHOLE_SCENE: Annotated[bool, DATA] = False
    REMOVE_EXTRA_WIDTH: Annotated[tuple[FromZero, FromZero, FromZero], DATA] = (0.0, 0.0, 0.0)  # m
    USE_ROAD_PLANE: Annotated[Literal[False], IGNORED] = False
    DB_INFO_PATH: Annotated[Any, IGNORED] = None  # the database lies at one place below DATA_PATH
    NUM_POINT_FEATURES: Annotated[Any, IGNORED] = None
    DATABASE_WITH_FAKELIDAR: Annotated[Any, IGNORED] = None

    @property
    def groups(self) -> dict[str, int]:
        """How many objects of each class are pasted at most."""
        return _numbers(self.SAMPLE_GROUPS)

    @property
    def least_points(self) -> dict[str, int]:
        """The fewest points per class of an object that may be pasted."""
        return _numbers(self.PREPARE.filter_by_min_points)


class RandomWorldFlip(Section):
    """Mirror left and right half the time: `x` is the axis that stays."""

    NAME: Annotated[Literal["random_world_flip"], DATA] = "random_world_flip"
    ALONG_AXIS_LIST: Annotated[tuple[Literal["x", "y"], ...], DATA] = ("x",)


class RandomWorldRotation(Section):
    """Turn around z by a random angle between two, in radians; one number stands for both directions."""

    NAME: Annotated[Literal["random_world_rotation"], DATA] = "random_world_rotation"
    WORLD_ROT_ANGLE: Annotated[FromZero | tuple[float, float], DATA]


class RandomWorldScaling(Section):
    """Scale places and sizes by a random factor between two."""

    NAME: Annotated[Literal["random_world_scaling"], DATA] = "random_world_scaling"
    WORLD_SCALE_RANGE: Annotated[tuple[Positive, Positive], DATA]


Augmentation = Annotated[
    GtSampling | RandomWorldFlip | RandomWorldRotation | RandomWorldScaling, Field(discriminator="NAME")
]


class DataAugmentor(Section):
    """The augmentations in their order; what DISABLE_AUG_LIST names is left out."""

    DISABLE_AUG_LIST: Annotated[tuple[str, ...], DATA] = ()
    AUG_CONFIG_LIST: tuple[Augmentation, ...] = ()

    def misfits(self) -> Iterator[Misfit]:
        """Ranges rise, and no flip leaves the range of the sonar."""
        for place, entry in enumerate(self.AUG_CONFIG_LIST):
            if entry.NAME not in self.DISABLE_AUG_LIST:
                yield from _misfits_of(f"AUG_CONFIG_LIST.{place}", entry)

    @property
    def enabled(self) -> tuple[Augmentation, ...]:
        """The augmentations that are not disabled."""
        return tuple(entry for entry in self.AUG_CONFIG_LIST if entry.NAME not in self.DISABLE_AUG_LIST)


def _misfits_of(key: str, entry: Section) -> Iterator[Misfit]:
    match entry:
        case RandomWorldFlip(ALONG_AXIS_LIST=axes) if axes != ("x",):
            yield Misfit(
                f"{key}.ALONG_AXIS_LIST", "is not the flip of a forward-looking sonar", "['x']", list(axes),
                "'x' mirrors left and right; remove 'y', which mirrors what lies ahead to behind the sensor.",
            )  # fmt: skip
        case RandomWorldRotation(WORLD_ROT_ANGLE=(low, high)) if low > high:
            yield Misfit(f"{key}.WORLD_ROT_ANGLE", "is no range", "[lowest, highest]", [low, high])
        case RandomWorldScaling(WORLD_SCALE_RANGE=(low, high)) if low > high:
            yield Misfit(f"{key}.WORLD_SCALE_RANGE", "is no range", "[lowest, highest]", [low, high])
        case _:
            pass


Metres3 = tuple[float, float, float]
Range6 = tuple[float, float, float, float, float, float]  # m: x, y, z of the lower corner, then of the upper one
FEATURES = ("x", "y", "z", "intensity")
Kitti = Literal["Car", "Pedestrian", "Cyclist"]


class DataSplit(Section):
    """The names of the lists in `ImageSets/` to train and to evaluate with."""

    train: Annotated[str, DATA] = "train"
    test: Annotated[str, DATA] = "val"


class InfoPath(Section):
    """What is known about the objects of each split: one file each, .npz, .json or .pkl."""

    train: Annotated[tuple[str, ...], DATA] = ("sonar_infos_train.pkl",)
    test: Annotated[tuple[str, ...], DATA] = ("sonar_infos_val.pkl",)

    def misfits(self) -> Iterator[Misfit]:
        """One file of a known kind for each split."""
        for name, files in (("train", self.train), ("test", self.test)):
            if len(files) != 1 or PurePath(files[0]).suffix not in (".npz", ".json", ".pkl"):
                yield Misfit(name, "is no file of infos", "one name that ends in .npz, .json or .pkl", list(files))


class PointFeatureEncoding(Section):
    """What the network sees of a point.

    INTENSITY: `standard` (default) is (log10 I - 8.95) / 0.35; `original` is the published log10(I + 1) / 11,
    which leaves all intensities between 0.78 and 0.97.
    """

    encoding_type: Annotated[str, built("absolute_coordinates_encoding"), MEANING] = "absolute_coordinates_encoding"
    used_feature_list: Annotated[tuple[str, ...], SHAPE] = FEATURES
    src_feature_list: Annotated[tuple[str, ...], SHAPE] = FEATURES
    INTENSITY: Annotated[Literal["standard", "original"], MEANING] = "standard"

    def misfits(self) -> Iterator[Misfit]:
        """The loader gives four columns."""
        for name in ("used_feature_list", "src_feature_list"):
            if getattr(self, name) != FEATURES:
                yield Misfit(name, "is not what the loader gives", list(FEATURES), list(getattr(self, name)))


class MaskPointsAndBoxes(Section):
    """Leave out points, and while training objects, outside POINT_CLOUD_RANGE.

    MASK_Z (default True): points are masked along z too; off, only the voxels cut there, as published.
    """

    NAME: Annotated[Literal["mask_points_and_boxes_outside_range"], MEANING] = "mask_points_and_boxes_outside_range"
    REMOVE_OUTSIDE_BOXES: Annotated[Literal[True], MEANING] = True
    MASK_Z: Annotated[bool, MEANING] = True
    USE_CENTER_TO_FILTER: Annotated[bool, only(True), MEANING] = True
    min_num_corners: Annotated[Count, IGNORED] = 1  # of a filter by corners


class ShuffleEnabled(Section):
    """Points are shuffled while training only."""

    train: Annotated[Literal[True], MEANING] = True
    test: Annotated[Literal[False], MEANING] = False


class ShufflePoints(Section):
    """Bring the points of a frame into a random order."""

    NAME: Annotated[Literal["shuffle_points"], MEANING] = "shuffle_points"
    SHUFFLE_ENABLED: ShuffleEnabled = ShuffleEnabled()


class VoxelLimit(Section):
    """The most voxels of a frame; OVERFLOW says which ones stay beyond it."""

    train: Annotated[Count, MEANING] = 20_000
    test: Annotated[Count, MEANING] = 20_000

    def misfits(self) -> Iterator[Misfit]:
        """One detector has one limit."""
        if self.train != self.test:
            yield Misfit("test", "differs from `train`", self.train, self.test, "Two limits are not built here.")


class TransformPointsToVoxels(Section):
    """Points to voxels. VOXEL_SIZE (x, y, z in m) and POINT_CLOUD_RANGE make the grid: nothing else decides it.

    OVERFLOW: which voxels stay beyond MAX_NUMBER_OF_VOXELS. `hash` (default): a choice spread evenly over space, the
    same every time; `first`, as published: those whose first point comes first in the frame.
    """

    NAME: Annotated[Literal["transform_points_to_voxels"], MEANING] = "transform_points_to_voxels"
    VOXEL_SIZE: Annotated[Metres3, MEANING]
    MAX_POINTS_PER_VOXEL: Annotated[Count, MEANING] = 64
    MAX_NUMBER_OF_VOXELS: VoxelLimit = VoxelLimit()
    OVERFLOW: Annotated[Literal["hash", "first"], MEANING, Since(before="hash")] = "hash"


Processor = Annotated[MaskPointsAndBoxes | ShufflePoints | TransformPointsToVoxels, Field(discriminator="NAME")]
PROCESSORS = ("mask_points_and_boxes_outside_range", "shuffle_points", "transform_points_to_voxels")


def _kitti_names() -> dict[str, Kitti]:
    return {"Box": "Car", "Diver": "Pedestrian"}


class DataConfig(Section):
    """The data set, its place, its processing. MAP_CLASS_TO_KITTI picks the overlaps that evaluation asks for."""

    DATASET: Annotated[str, built("SonarDataset"), DATA] = "SonarDataset"
    DATA_PATH: Annotated[str, FREE] = "data/sonar"
    POINT_CLOUD_RANGE: Annotated[Range6, MEANING]
    DATA_SPLIT: DataSplit = DataSplit()
    INFO_PATH: InfoPath = InfoPath()
    USE_BINARY_FORMAT: Annotated[bool, DATA] = True
    CACHE_ALL_DATA: Annotated[Any, IGNORED] = None
    USE_DISK_CACHE: Annotated[Any, IGNORED] = None
    MAP_CLASS_TO_KITTI: Annotated[dict[str, Kitti], FREE] = Field(default_factory=_kitti_names)
    POINT_FEATURE_ENCODING: PointFeatureEncoding = PointFeatureEncoding()
    DATA_AUGMENTOR: DataAugmentor = DataAugmentor()
    DATA_PROCESSOR: Annotated[tuple[Processor, ...], MEANING]

    def misfits(self) -> Iterator[Misfit]:
        """The three steps of processing are there, each once, in their order."""
        names = tuple(step.NAME for step in self.DATA_PROCESSOR)
        if names != PROCESSORS:
            yield Misfit("DATA_PROCESSOR", "is not the processing that is built here", list(PROCESSORS), list(names))

    @property
    def mask(self) -> MaskPointsAndBoxes:
        """The first step."""
        return next(step for step in self.DATA_PROCESSOR if isinstance(step, MaskPointsAndBoxes))

    @property
    def voxels(self) -> TransformPointsToVoxels:
        """The step that decides the grid."""
        return next(step for step in self.DATA_PROCESSOR if isinstance(step, TransformPointsToVoxels))

    @property
    def voxels_key(self) -> str:
        """Where that step stands in this section."""
        return f"DATA_PROCESSOR.{self.DATA_PROCESSOR.index(self.voxels)}"
