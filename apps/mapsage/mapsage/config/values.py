"""The kinds of values that configs of pictures have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, get_args

from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True)
class OrOne:
    """Lets one item stand where a tuple of them belongs; it is taken `times` times."""

    times: int = 1

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Choose by the look of the value, so that an error speaks of what was meant only."""
        one = handler.generate_schema(get_args(source)[0])
        return core_schema.tagged_union_schema(
            {"many": handler(source), "one": core_schema.no_info_after_validator_function(self._repeat, one)},
            discriminator=lambda value: "many" if isinstance(value, list | tuple) else "one",
        )

    def _repeat(self, item: Any) -> tuple[Any, ...]:
        return (item,) * self.times


Count = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]  # of dropping: at 1 nothing would be left
Positive = Annotated[float, Field(gt=0)]
FromZero = Annotated[float, Field(ge=0)]
RGB = tuple[float, float, float]
Size = Annotated[tuple[Count, Count], OrOne(times=2)]  # px; one number stands for both sides
