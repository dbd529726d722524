"""Fine-tuning: copy from a file's tensors those that fit, and say exactly which did not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unbroken.errors import DamagedFile, Incompatible, Refused

Shape = tuple[int, ...]
MOST_NAMED = 6  # of each reason


@dataclass(frozen=True, kw_only=True)
class ShapeMismatch:
    """A tensor that both sides have, in different shapes."""

    name: str
    expected: Shape
    found: Shape


@dataclass(frozen=True, kw_only=True)
class WeightsReport:
    """What became of every tensor, named as in the model; the `missing` ones keep their initial values."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[ShapeMismatch, ...]

    @property
    def complete(self) -> bool:
        """Whether both sides had the same names and shapes."""
        return not (self.missing or self.unexpected or self.mismatched)

    def as_lines(self, *, verb: str = "loaded") -> list[str]:
        """For the log: a count, then the tensors that were not loaded, the first few of each reason by name."""
        expected = len(self.loaded) + len(self.missing) + len(self.mismatched)
        return [
            f"{len(self.loaded)} of {expected} tensors {verb}",
            *_few("shape differs, kept as initialised", [_difference(each) for each in self.mismatched]),
            *_few("not in the file, kept as initialised", self.missing),
            *_few("not in the model, left out", self.unexpected),
        ]


def _few(reason: str, names: Sequence[str]) -> list[str]:
    more = len(names) - MOST_NAMED
    return [f"{reason}: {name}" for name in names[:MOST_NAMED]] + ([f"{reason}: {more} more"] if more > 0 else [])


def fit_weights(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    where: object,
    rename: Callable[[str], str] | None = None,
    strict: bool = False,
) -> WeightsReport:
    """Copy into `model` every tensor of `state` with a known name and the right shape.

    Nothing is copied before all is checked. A leading `module.` (data-parallel wrappers) is dropped, then `rename`
    gives the file's names as the model spells them. Values are converted to the model's dtype and device. Raises
    DamagedFile when two entries mean the same tensor, Refused when nothing at all fits, and with `strict` Incompatible
    when one tensor of the model would keep its initial values.
    """
    found = _spell_as_model(state, rename or str)
    own = model.state_dict()
    report = compare_weights(own, found)
    if not report.loaded:
        raise Refused(
            where,
            "not one tensor of this file fits the model",
            expected=f"names like {next(iter(own), '(none)')}",
            found=next(iter(state), "no tensors"),
            do="Check that the file belongs to this kind of model.",
        )
    if strict and (report.missing or report.mismatched):
        lines = "\n  ".join(report.as_lines(verb="fit"))
        raise Incompatible(
            where, f"these are not the weights of this model, nothing was loaded:\n  {lines}", do="Check the config."
        )
    with torch.no_grad():
        for name in report.loaded:
            own[name].copy_(found[name])
    return report


def compare_weights(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> WeightsReport:
    """Which of `found` would fit into `own`, by name and shape; reads no values, so meta tensors do."""
    shared = [name for name in own if name in found]
    mismatched = tuple(
        ShapeMismatch(name=name, expected=tuple(own[name].shape), found=tuple(found[name].shape))
        for name in shared
        if own[name].shape != found[name].shape
    )
    unfit = {each.name for each in mismatched}
    return WeightsReport(
        loaded=tuple(name for name in shared if name not in unfit),
        missing=tuple(name for name in own if name not in found),
        unexpected=tuple(name for name in found if name not in own),
        mismatched=mismatched,
    )


def _spell_as_model(state: Mapping[str, Tensor], rename: Callable[[str], str]) -> dict[str, Tensor]:
    spelled: dict[str, Tensor] = {}
    for raw, tensor in state.items():
        name = rename(raw.removeprefix("module."))
        if name in spelled:
            raise DamagedFile(name, "two entries of the weights mean this one tensor", found=raw)
        spelled[name] = tensor
    return spelled


def _difference(mismatch: ShapeMismatch) -> str:
    return f"{mismatch.name} is {list(mismatch.expected)} in the model, {list(mismatch.found)} in the file"
