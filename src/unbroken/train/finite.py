"""A loss or a gradient that is not finite: what is said of it, and which samples are left out after it.

With a gradient scaler, gradients that overflow are normal: the scaler skips such a step. Only the loss counts then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from unbroken.errors import Refused
from unbroken.quantities import counted
from unbroken.train.data.order import Key

EVENT = "rollback"
MOST_AT_ONE_STEP = 3
MOST_NAMED = 16


class GoBack(Exception):
    """The run goes back to its last checkpoint; what failed is in its journal."""


def require_finite_weights(model: nn.Module, file: object) -> None:
    """Raise Refused where the state to go back to is itself broken: then no sample is to blame."""
    broken = [name for name, tensor in model.named_parameters() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise Refused(
            file,
            "weights in it are not finite, so going back to it does not help",
            found=f"{counted(len(broken), 'tensor')}, first {broken[0]}",
            do="Resume from an older checkpoint: --ckpt FILE, with a lower learning rate.",
        )


def stopping(step: int, what: str, *, samples: str, saved: str) -> Refused:
    """The error that ends a run whose step is not kept."""
    return Refused(
        f"step {step}",
        f"{what} is not a number any more; nothing of this step was kept",
        found=samples,
        do=f"Look at these samples, lower the learning rate or clip the gradients; {saved}. "
        "To go on without these samples: --on-nan rollback.",
    )


def giving_up(step: int, what: str, *, samples: str, saved: str) -> Refused:
    """The error that ends a run that went back again and again."""
    return Refused(
        f"step {step}",
        f"{what} is not a number any more, also after going back {MOST_AT_ONE_STEP} times and without the samples "
        "that it came with",
        found=samples,
        do=f"The weights are to blame, not the samples: lower the learning rate, or resume from an older checkpoint "
        f"with --ckpt FILE; {saved}.",
    )


def rollbacks_at(events: Iterable[Mapping[str, Any]], step: int) -> int:
    """How often this history has gone back because of this step."""
    return sum(event.get("event") == EVENT and event.get("step") == step for event in events)


def left_out(plain: Sequence[Sequence[int]], events: Iterable[Mapping[str, Any]], *, epoch: int) -> list[list[int]]:
    """The [epoch, sample] to leave out from this epoch on: those of a checkpoint, and those of all rollbacks."""
    keys = {(int(e), int(sample)) for e, sample in plain}
    for event in events:
        if event.get("event") == EVENT:
            keys |= {(int(e), int(sample)) for e, sample in event.get("samples", ())}
    return [list(key) for key in sorted(keys) if key[0] >= epoch]


def finite(values: Iterable[Tensor | None]) -> bool:
    """Whether all of these are; one question to the device."""
    sums = [value.detach().float().sum() for value in values if value is not None]
    return bool(torch.isfinite(torch.stack(sums)).all()) if sums else True


def samples_in_words(keys: Sequence[Key], names: Sequence[str]) -> str:
    """`samples 3, 17 of epoch 0 (000012, 000031)`."""
    shown = keys[:MOST_NAMED]
    by_epoch = groupby(shown, key=lambda key: key[0])
    words = "; ".join(f"{', '.join(str(sample) for _, sample in each)} of epoch {epoch}" for epoch, each in by_epoch)
    more = f" and {len(keys) - len(shown)} more" if len(keys) > len(shown) else ""
    named = f" ({', '.join(names[:MOST_NAMED])})" if names else ""
    return f"{'sample' if len(keys) == 1 else 'samples'} {words}{more}{named}"
