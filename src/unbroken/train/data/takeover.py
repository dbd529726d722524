"""A checkpoint of another program is taken over: its states in our spelling, what it lacks, where in the data it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unbroken.quantities import counted
from unbroken.train.data.order import Order, steps_in_epoch

ABSENT = {
    "scheduler": "the file has no lr_scheduler: the config's schedule counts",
    "scaler": "the file has no gradient scaler: it begins at its initial scale",
}


@dataclass(frozen=True, kw_only=True)
class Translated:
    """What became of another program's checkpoint.

    Args:
        parts: The states as the application spells them, by name.
        remarks: Sentences on what the file lacks or means otherwise.
    """

    parts: Mapping[str, Any]
    remarks: tuple[str, ...] = ()


# From the parts by name, as plain trees with tensors or their references, and the path of the file for errors.
Translate = Callable[[Mapping[str, Any], str], Translated]


def under_present_names(parts: Mapping[str, Any], rename: Callable[[str], str]) -> Translated:
    """The same with the tensors of the model under the names that `rename` gives them, and a word if any has another.

    Where two of them would have one name, all keep theirs: what does not fit is said where names are compared.
    """
    state = parts.get("model")
    if not isinstance(state, Mapping):
        return Translated(parts=parts)
    spelled = {rename(name) if isinstance(name, str) else name: tensor for name, tensor in state.items()}
    earlier = [(old, new) for old, new in zip(state, spelled) if old != new]
    if not earlier or len(spelled) < len(state):
        return Translated(parts=parts)
    (old, new), number = earlier[0], len(earlier)
    what = counted(number, "tensor has an earlier name", "tensors have earlier names")
    return Translated(parts={**parts, "model": spelled}, remarks=(f"{what} in this file: {old} is now {new}",))


def as_they_are(parts: Mapping[str, Any], _where: str) -> Translated:
    """The other program spells the states as the application does."""
    return Translated(parts=parts)


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """What a file of another program says about its place in the data: how many steps, perhaps how many epochs."""

    step: int
    epochs: int | None  # whole ones; None where only the steps count
    ends_epoch: bool  # its name and its content agree that it is from the end of an epoch


def what_it_lacks(absent: Sequence[str], *, best_known: bool, config_known: bool) -> list[str]:
    """One line for each thing that our own checkpoints have and the file has not, with what that means.

    `absent` names the tracked parts that have no state in the file.
    """
    lines = ["the file has no random state: dropout and the like begin a new stream, exactness begins here"]
    lines += [ABSENT.get(name, f"the file has no state of {name}: it begins new") for name in absent]
    if not best_known:
        lines.append("the file has no best score: the next evaluation is the best so far")
    if not config_known:
        lines.append("the config it was written under is not known: changes since then cannot be listed")
    return lines


def place_in_data(foreign: Foreign, order: Order, *, batch_size: int, accumulate: int) -> tuple[int, str]:
    """The position that its steps lead to in our order, and the sentence about it.

    Within an epoch the number of samples left is kept; which ones were used, only the other program knew. Where steps
    and epochs do not fit together (another batch size, other data), the epoch begins again, so that none is left out.
    """
    if order.straddles:
        position = foreign.step * batch_size
        words = f"data position taken from the step: {position} samples were used; from here on the order is this run's"
        return position, words
    in_epoch = -(-steps_in_epoch(order, batch_size=batch_size) // accumulate)
    epochs = foreign.step // in_epoch if foreign.epochs is None else foreign.epochs
    within = 0 if foreign.ends_epoch else foreign.step - epochs * in_epoch
    begun = epochs * order.size
    done = f"{counted(epochs, 'whole epoch')}"
    if within == 0:
        return begun, f"after {done} the next begins at its start: no sample is lost"
    if not 0 < within <= in_epoch:
        misfit = f"{foreign.step} steps are not {done} of {in_epoch} steps and a part of one (another batch size?)"
        return begun, f"{misfit}: the epoch in progress begins again at its start, no sample is lost"
    return (
        begun + min(within * batch_size * accumulate, order.size),
        f"after {done}, {within} of {in_epoch} steps of the next are done on samples that the file does not name: the "
        "rest follows in this run's order, so in this one epoch some samples come twice and some not at all",
    )
