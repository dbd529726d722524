"""What is done to training frames: the entries of `AUG_CONFIG_LIST`, each a section of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from focalsst.config.values import FromZero, Positive
from unbroken.config import Effect, Misfit, Section

DATA, IGNORED = Effect.DATA, Effect.IGNORED

ClassNumbers = tuple[Annotated[str, Field(pattern=r"^[^:]+:[0-9]+$")], ...]  # "Diver:6"


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
    def classes(self) -> tuple[str, ...]:
        """The classes that are pasted."""
        return tuple(group.partition(":")[0] for group in self.SAMPLE_GROUPS)


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
    def entries(self) -> list[dict[str, Any]]:
        """The augmentations that are not disabled, as plain data in the original's words."""
        entries = [entry for entry in self.AUG_CONFIG_LIST if entry.NAME not in self.DISABLE_AUG_LIST]
        return [_as_data(entry) for entry in entries]


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


def _as_data(section: Section) -> dict[str, Any]:
    fields = type(section).model_fields.items()
    kept = [name for name, info in fields if IGNORED not in info.metadata]
    values = {name: getattr(section, name) for name in kept}
    return {name: _as_data(value) if isinstance(value, Section) else _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
