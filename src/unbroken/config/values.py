"""Kinds of values that the settings of any config have, for the annotations of a section's fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

Count = Annotated[int, Field(gt=0)]  # A whole number above 0.
NotNegative = Annotated[int, Field(ge=0)]  # A whole number from 0 on.
Fraction = Annotated[float, Field(ge=0, le=1)]  # A number from 0 to 1.
Rate = Annotated[float, Field(ge=0, lt=1)]  # A number from 0 on, below 1: of what is dropped, something is left.
Positive = Annotated[float, Field(gt=0)]  # A number above 0.
FromZero = Annotated[float, Field(ge=0)]  # A number from 0 on.


@dataclass(frozen=True)
class OrOne:
    """Lets one item stand where a tuple of them belongs.

    Args:
        times: How often the item is taken.
    """

    times: int = 1

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # By the look of the value, so that an error speaks of what was meant only.
        one = handler.generate_schema(get_args(source)[0])
        repeated = core_schema.no_info_after_validator_function(lambda item: (item,) * self.times, one)
        return core_schema.tagged_union_schema(
            {"many": handler(source), "one": repeated},
            discriminator=lambda value: "many" if isinstance(value, list | tuple) else "one",
        )


def built(*names: str) -> AfterValidator:
    """Return what takes the names of parts that exist; any other name is an error that says so.

    Args:
        *names: Of all parts that do.
    """
    return _only(names, f"{' or '.join(names)}: other parts are not built here")


def only(value: object) -> AfterValidator:
    """Return what takes the one value that is built.

    Args:
        value: That one.
    """
    return _only((value,), f"{value!r}: nothing else is built here")


def _only(known: tuple[object, ...], message: str) -> AfterValidator:
    def check(value: Any) -> Any:
        if value not in known:
            raise ValueError(message)
        return value

    return AfterValidator(check)
