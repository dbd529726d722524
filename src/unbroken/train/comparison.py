"""Whether a part that was restored says of its state what was saved: every number, to the bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.amp.grad_scaler import GradScaler

from unbroken.checkpoint.describe import summary
from unbroken.train.in_place import form, same_bits

Difference = tuple[str, str, str]  # the place, what was saved there, what is there now


def begins_anew(part: Any) -> bool:
    """Whether a part rightly leaves the saved state: a scaler that is off, or has other settings now."""
    return bool(getattr(part, "begins_anew", False)) or (isinstance(part, GradScaler) and not part.is_enabled())


def differences(saved: Any, now: Any, path: str = "") -> Iterator[Difference]:
    """Where a plain state is not the saved one. What is there beside may be: a later version knows of more."""
    match saved, now:
        case torch.Tensor(), torch.Tensor():
            if not same_bits(saved, now):
                other = "other numbers" if form(saved) == form(now) else "a tensor"
                yield path, f"{form(saved)}", f"{other}, {form(now)}"
        case Mapping(), Mapping():
            for key, item in saved.items():
                where = f"{path}.{key}".lstrip(".")
                if key in now:
                    yield from differences(item, now[key], where)
                else:
                    yield where, summary(item), "nothing"
        case ((list() | tuple()), (list() | tuple())) if len(saved) == len(now):
            for place, (item, other) in enumerate(zip(saved, now)):
                yield from differences(item, other, f"{path}[{place}]")
        case float(), float():
            if repr(saved) != repr(now):  # a NaN is itself, and 0.0 is not -0.0
                yield path, repr(saved), repr(now)
        case _ if isinstance(saved, torch.Tensor) or isinstance(now, torch.Tensor) or saved != now:
            yield path, summary(saved), summary(now)
