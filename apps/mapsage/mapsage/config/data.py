"""What the network learns from: loaders, datasets, and pipelines whose steps are sections of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from mapsage.dataset.palette import EARTHVQA_CLASSES, EARTHVQA_PALETTE, LOVEDA_CLASSES, LOVEDA_PALETTE
from unbroken.config import Count, Effect, Fraction, FromZero, Misfit, NotNegative, OrOne, Positive, Section

MEANING, DATA, FREE, IGNORED = Effect.MEANING, Effect.DATA, Effect.FREE, Effect.IGNORED

KNOWN_CLASSES = {"EarthVQADataset": EARTHVQA_CLASSES, "LoveDADataset": LOVEDA_CLASSES}
Size = Annotated[tuple[Count, Count], OrOne(times=2)]  # px; one number stands for both sides
Bounds = tuple[FromZero, FromZero]
Colour = tuple[NotNegative, NotNegative, NotNegative]


class LoadImageFromFile(Section):
    """Read the picture."""

    type: Annotated[Literal["LoadImageFromFile"], DATA] = "LoadImageFromFile"
    to_float32: Annotated[Literal[False], IGNORED] = False
    color_type: Annotated[Literal["color"], IGNORED] = "color"
    imdecode_backend: Annotated[Literal["cv2"], IGNORED] = "cv2"
    backend_args: Annotated[None, IGNORED] = None


class LoadAnnotations(Section):
    """Read the mask; in a pipeline for validation after any resize, so that it keeps its own size."""

    type: Annotated[Literal["LoadAnnotations"], DATA] = "LoadAnnotations"
    imdecode_backend: Annotated[Literal["pillow"], IGNORED] = "pillow"
    backend_args: Annotated[None, IGNORED] = None


class Resize(Section):
    """Resize to `scale` (width, height in px), or to fit into it."""

    type: Annotated[Literal["Resize"], DATA] = "Resize"
    scale: Annotated[Size, DATA]
    keep_ratio: Annotated[bool, DATA] = False


def _backwards(**ranges: tuple[float, float]) -> Iterator[Misfit]:
    for name, (low, high) in ranges.items():
        if low > high:
            yield Misfit(name, "goes downwards", f"({high:g}, {low:g})", f"({low:g}, {high:g})")


class RandomResize(Section):
    """Resize to `scale` (width, height in px) times a random ratio."""

    type: Annotated[Literal["RandomResize"], DATA] = "RandomResize"
    scale: Annotated[Size, DATA]
    ratio_range: Annotated[tuple[Positive, Positive], DATA] = (0.5, 2.0)
    keep_ratio: Annotated[bool, DATA] = False
    resize_type: Annotated[Literal["Resize"], IGNORED] = "Resize"

    def misfits(self) -> Iterator[Misfit]:
        """A range goes upwards."""
        yield from _backwards(ratio_range=self.ratio_range)


class RandomCrop(Section):
    """Cut out `crop_size` (height, width in px), if possible with no class above `cat_max_ratio` of it."""

    type: Annotated[Literal["RandomCrop"], DATA] = "RandomCrop"
    crop_size: Annotated[Size, DATA]
    cat_max_ratio: Annotated[Fraction, DATA] = 1.0


class RandomFlip(Section):
    """Mirror left and right."""

    type: Annotated[Literal["RandomFlip"], DATA] = "RandomFlip"
    prob: Annotated[Fraction, DATA] = 0.5
    direction: Annotated[Literal["horizontal"], IGNORED] = "horizontal"


class PhotoMetricDistortion(Section):
    """Change brightness, contrast, saturation and hue at random."""

    type: Annotated[Literal["PhotoMetricDistortion"], DATA] = "PhotoMetricDistortion"
    brightness_delta: Annotated[NotNegative, DATA] = 32  # grey levels
    contrast_range: Annotated[Bounds, DATA] = (0.5, 1.5)
    saturation_range: Annotated[Bounds, DATA] = (0.5, 1.5)
    hue_delta: Annotated[Count, DATA] = 18  # of OpenCV's 180

    def misfits(self) -> Iterator[Misfit]:
        """A range goes upwards."""
        yield from _backwards(contrast_range=self.contrast_range, saturation_range=self.saturation_range)


class PackSegInputs(Section):
    """Make a sample of picture and mask."""

    type: Annotated[Literal["PackSegInputs"], DATA] = "PackSegInputs"
    meta_keys: Annotated[tuple[str, ...], IGNORED] = ()


Transform = Annotated[
    LoadImageFromFile
    | LoadAnnotations
    | Resize
    | RandomResize
    | RandomCrop
    | RandomFlip
    | PhotoMetricDistortion
    | PackSegInputs,
    Field(discriminator="type"),
]


class DataPrefix(Section):
    """Where pictures and masks lie below `data_root`; a test set has no masks."""

    img_path: Annotated[str, FREE]
    seg_map_path: Annotated[str | None, FREE] = None


class MetaInfo(Section):
    """The names of the labels after `reduce_zero_label`, in their order, and their colours in pictures."""

    classes: Annotated[tuple[str, ...], MEANING]
    palette: Annotated[tuple[Colour, ...] | None, FREE] = None


class SegDataset(Section):
    """Pictures with masks in two folders; EarthVQA and LoveDA know their classes."""

    type: Annotated[Literal["BaseSegDataset", "EarthVQADataset", "LoveDADataset"], MEANING]
    data_root: Annotated[str, FREE] = ""
    data_prefix: DataPrefix
    img_suffix: Annotated[str, DATA] = ".png"
    seg_map_suffix: Annotated[str, DATA] = ".png"
    # None: what it is in MMSegmentation, so True for LoveDA, False for BaseSegDataset; for EarthVQA it is True.
    reduce_zero_label: Annotated[bool | None, MEANING] = None
    metainfo: MetaInfo | None = None
    pipeline: tuple[Transform, ...]

    @model_validator(mode="after")
    def _with_meaning_of_zero(self) -> Self:
        """What 0 means is worked out once and recorded."""
        object.__setattr__(self, "reduce_zero_label", self.zero_is_no_data)
        return self

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the labels; empty when nobody says."""
        return self.metainfo.classes if self.metainfo is not None else KNOWN_CLASSES.get(self.type, ())

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...] | None:
        """The colour of each label in pictures; None when nobody says."""
        if self.metainfo is not None and self.metainfo.palette is not None:
            return self.metainfo.palette
        known = {EARTHVQA_CLASSES: EARTHVQA_PALETTE, LOVEDA_CLASSES: LOVEDA_PALETTE}
        return known.get(self.class_names)

    @property
    def zero_is_no_data(self) -> bool:
        """`reduce_zero_label`, worked out: both known datasets have 0 for no data."""
        return self.type in KNOWN_CLASSES if self.reduce_zero_label is None else self.reduce_zero_label

    def misfits(self) -> Iterator[Misfit]:
        """The labels have names, and the pipeline leads from a file to a sample."""
        if not self.class_names:
            yield Misfit("metainfo", "is missing", do="Name the classes: metainfo=dict(classes=('background', ...)).")
        kinds = [step.type for step in self.pipeline]
        if kinds[:1] != ["LoadImageFromFile"] or kinds[-1:] != ["PackSegInputs"]:
            ends = "LoadImageFromFile first and PackSegInputs last"
            yield Misfit("pipeline", "does not lead from a file to a sample", ends, ", ".join(kinds) or "no steps")
        colours = self.metainfo.palette if self.metainfo else None
        if colours is not None and len(colours) != len(self.class_names):
            yield Misfit("metainfo.palette", "needs one colour per class", len(self.class_names), len(colours))


class ConcatDataset(Section):
    """Several datasets as one, in this order."""

    type: Annotated[Literal["ConcatDataset"], DATA] = "ConcatDataset"
    datasets: Annotated[tuple[SegDataset, ...], Field(min_length=1)]


Dataset = Annotated[SegDataset | ConcatDataset, Field(discriminator="type")]


class Sampler(Section):
    """The order of the samples."""

    type: Annotated[Literal["InfiniteSampler", "DefaultSampler"], DATA] = "InfiniteSampler"
    shuffle: Annotated[bool, DATA] = True


class InOrder(Section):
    """The order of the samples in validation: theirs."""

    type: Annotated[Literal["InfiniteSampler", "DefaultSampler"], FREE] = "DefaultSampler"
    shuffle: Annotated[Literal[False], FREE] = False


class Loader(Section):
    """What every loader has."""

    batch_size: Annotated[Count, FREE] = 1
    num_workers: Annotated[NotNegative, FREE] = 2
    persistent_workers: Annotated[bool, FREE] = True
    pin_memory: Annotated[bool, FREE] = False
    prefetch_factor: Annotated[Count | None, FREE] = None
    sampler: Any = None  # each has its own
    dataset: Dataset
    collate_fn: Annotated[Any, IGNORED] = None

    @property
    def datasets(self) -> tuple[SegDataset, ...]:
        """The datasets, one or several."""
        return self.dataset.datasets if isinstance(self.dataset, ConcatDataset) else (self.dataset,)


class EvalDataLoader(Loader):
    """What validation or testing reads; how many at once changes no result."""

    sampler: InOrder = InOrder()


class DataLoader(Loader):
    """What training reads; `batch_size` is per process."""

    batch_size: Annotated[Count, DATA] = 1
    sampler: Sampler = Sampler()
