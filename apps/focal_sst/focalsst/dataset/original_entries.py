"""The original's list of augmentations, `AUG_CONFIG_LIST`, as functions of a scene and a generator."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final

from focalsst.dataset.database import Database, paste_objects
from focalsst.dataset.scene import Augmentation, random_flip, random_rotation, random_scaling
from unbroken.errors import ConfigError

KEYS: Final[Mapping[str, Collection[str]]] = {
    "gt_sampling": {
        "SAMPLE_GROUPS",
        "LIMIT_WHOLE_SCENE",
        "REMOVE_EXTRA_WIDTH",
        "PREPARE",
        "USE_ROAD_PLANE",
        "DB_INFO_PATH",
        "NUM_POINT_FEATURES",
        "DATABASE_WITH_FAKELIDAR",
    },
    "random_world_flip": {"ALONG_AXIS_LIST"},
    "random_world_rotation": {"WORLD_ROT_ANGLE"},
    "random_world_scaling": {"WORLD_SCALE_RANGE"},
}


def augmentations_from(
    entries: Sequence[Mapping[str, Any]], *, disabled: Collection[str] = (), database: Database | None = None
) -> tuple[Augmentation, ...]:
    """Turn the entries of a config into functions, in their order, without those whose NAME is disabled."""
    return tuple(
        augmentation
        for number, entry in enumerate(entries)
        if entry.get("NAME") not in disabled
        for augmentation in _of_entry(f"AUG_CONFIG_LIST[{number}]", entry, database)
    )


def min_points_from(entry: Mapping[str, Any]) -> dict[str, int]:
    """Give the fewest points per class that `PREPARE.filter_by_min_points` of a gt_sampling entry asks for."""
    return _class_numbers("PREPARE.filter_by_min_points", entry.get("PREPARE", {}).get("filter_by_min_points", ()))


def _of_entry(where: str, entry: Mapping[str, Any], database: Database | None) -> list[Augmentation]:
    kind = str(entry.get("NAME"))
    if kind not in KEYS:
        raise ConfigError(where, "this augmentation is not known", expected=f"one of {', '.join(KEYS)}", found=kind)
    where = f"{where} ({kind})"
    unknown = sorted(set(entry) - {"NAME"} - set(KEYS[kind]))
    if unknown:
        raise ConfigError(where, "a key is not known", expected=", ".join(sorted(KEYS[kind])), found=", ".join(unknown))
    match kind:
        case "random_world_flip":
            return _flips(where, entry.get("ALONG_AXIS_LIST", ()))
        case "random_world_rotation":
            angle = entry.get("WORLD_ROT_ANGLE")
            both_ways = [-angle, angle] if isinstance(angle, int | float) else angle
            return [partial(random_rotation, range_rad=_pair(where, "WORLD_ROT_ANGLE", both_ways))]
        case "random_world_scaling":
            factors = _pair(where, "WORLD_SCALE_RANGE", entry.get("WORLD_SCALE_RANGE"))
            return [partial(random_scaling, factors=factors)]
        case _:
            return [_pasting(where, entry, database)]


def _flips(where: str, axes: Sequence[str]) -> list[Augmentation]:
    if list(axes) != ["x"]:
        raise ConfigError(
            where,
            "the flips are not those of a forward-looking sonar",
            expected="ALONG_AXIS_LIST ['x'], which mirrors left and right",
            found=list(axes),
            do="Remove 'y': it mirrors what lies ahead to behind the sensor, where the range ends.",
        )
    return [random_flip]


def _pasting(where: str, entry: Mapping[str, Any], database: Database | None) -> Augmentation:
    if entry.get("USE_ROAD_PLANE"):
        raise ConfigError(where, "there is no road plane under water", expected="USE_ROAD_PLANE false", found="true")
    if database is None:
        raise ConfigError(
            where, "there is no database of objects", do="Write it once: python convert.py database DATA_ROOT"
        )
    groups = _class_numbers(f"{where}.SAMPLE_GROUPS", entry.get("SAMPLE_GROUPS", ()))
    strange = sorted(set(groups) - set(database.objects))
    if strange:
        known = ", ".join(database.objects) or "no class at all"
        raise ConfigError(where, "the database has no such class", expected=known, found=", ".join(strange))
    width = tuple(float(number) for number in entry.get("REMOVE_EXTRA_WIDTH", (0, 0, 0)))
    if len(width) != 3:
        raise ConfigError(where, "REMOVE_EXTRA_WIDTH is no size", expected="three metres", found=list(width))
    return partial(
        paste_objects,
        database=database,
        groups=groups,
        limit_whole_scene=bool(entry.get("LIMIT_WHOLE_SCENE", False)),
        extra_width_m=(width[0], width[1], width[2]),
    )


def _class_numbers(where: str, entries: Sequence[str]) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for entry in entries:
        name, _, number = str(entry).partition(":")
        if not name or not number.isdecimal():
            raise ConfigError(where, "an entry cannot be read", expected="Class:number, such as Diver:6", found=entry)
        numbers[name] = int(number)
    return numbers


def _pair(where: str, key: str, value: Any) -> tuple[float, float]:
    match value:
        case [int() | float() as low, int() | float() as high] if low <= high:
            return float(low), float(high)
    raise ConfigError(where, f"{key} is no range", expected="[lowest, highest]", found=value)
