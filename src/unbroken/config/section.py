"""The one kind of schema: frozen, complete, closed to unknown keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True)
class Misfit:
    """Settings that are right alone and wrong together; `key` is relative to the section that says so."""

    key: str
    what: str
    expected: object = ""
    found: object = ""
    do: str = ""


class Section(BaseModel):
    """One typed part of a config; every field says in its annotation what changing it does.

    `embed_dims: Annotated[int, Effect.SHAPE] = 32`. A field that is itself a section needs no effect of its
    own; when it has one, it counts for all fields below that have none. `advice` says of keys that other programs know
    here, or knew, what does the same.
    """

    advice: ClassVar[Mapping[str, str]] = {}

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @classmethod
    def not_built(cls, _tree: Mapping[str, Any], /) -> Misfit | None:
        """Name the one reason why a whole config of another program cannot be read; asked first, and then alone."""
        return None

    @classmethod
    def completed(cls, tree: Mapping[str, Any]) -> Mapping[str, Any]:
        """Give a whole config the values that follow from others in it; asked before anything is checked."""
        return tree

    def misfits(self) -> Iterator[Misfit]:
        """Yield what does not fit together in this section; asked once everything has the right type."""
        yield from ()
