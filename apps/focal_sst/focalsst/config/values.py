"""The kinds of values that configs of the sonar detector have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

Count = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
FromZero = Annotated[float, Field(ge=0)]
Metres3 = tuple[float, float, float]
Range6 = tuple[float, float, float, float, float, float]  # m: x, y, z of the lower corner, then of the upper one
Cells3 = tuple[Count, Count, Count]  # along x, y, z
Shift3 = tuple[NotNegative, NotNegative, NotNegative]
Intensity = Literal["standard", "original"]
Counts = Annotated[tuple[Count, ...], Field(min_length=1)]


def built(*names: str) -> AfterValidator:
    """Take the names of the parts that exist here; any other name is an error that says so."""
    return AfterValidator(_taking(names, f"{' or '.join(names)}: other parts are not built here"))


def only(value: object) -> AfterValidator:
    """Take the one value that is built here."""
    return AfterValidator(_taking((value,), f"{value!r}: nothing else is built here"))


def _taking(known: tuple[object, ...], message: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if value not in known:
            raise ValueError(message)
        return value

    return check


def _one_stage(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(values) != 1:
        raise ValueError("a list of one value, for one stage: DSVT with several stages is not built here")
    return values


ONE_STAGE = AfterValidator(_one_stage)
