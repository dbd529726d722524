"""Fine-tuning: copy from a file's tensors those that fit, and say exactly what became of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from unbroken.errors import DamagedFile, Incompatible, Refused
from unbroken.quantities import counted
from unbroken.train.pretrained.weights_file import ClassMatch, ClassRows, Names, match_classes, why_not_by_name
from unbroken.train.pretrained.weights_report import Fate, Group, WeightsReport, as_lines
from unbroken.train.state.placement import placed_like

WRAPPERS = ("module.", "_orig_mod.")  # what data-parallel training and torch.compile put before every name


def fit_weights(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    where: object,
    rename: Callable[[str], str] = str,
    strict: bool = False,
    all_used: bool = False,
    class_rows: ClassRows | None = None,
    classes: Names = (),
) -> WeightsReport:
    """Copy into `model` every tensor of `state` with a known name and the right shape.

    Nothing is copied before all is checked and converted. A leading `module.` or `_orig_mod.` is dropped, then `rename`
    gives the file's names as the model spells them. Rows of `class_rows` are told by name if `classes` names the
    file's. Raises DamagedFile when two entries mean the same tensor, Refused when no name is known, and Incompatible
    when no weight has the right shape, or with `strict` something of the model would keep its initial values, or with
    `all_used` something of the file would be left out.
    """
    own = {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}
    found = spell_as_model(state, own, rename)
    report = compare_weights(own, found, class_rows=class_rows, classes=classes)
    require_usable(report, where, own, state, strict=strict, all_used=all_used)
    ready = _converted(report, own, found)
    with torch.no_grad():
        for name, values in ready.items():
            own[name].copy_(placed_like(values, own[name]))
    return report


def compare_weights(
    own: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    *,
    class_rows: ClassRows | None = None,
    classes: Names = (),
) -> WeightsReport:
    """Which of `found` fit into `own`, by name, shape and kind of number; meta tensors do."""
    judged = [_judge(name, own, found, class_rows, classes) for name in own]
    fates = [fate for fate, _, _ in judged]
    fates += [
        Fate(name=name, group="unused", file=tuple(tensor.shape), reason="not in the model: left out")
        for name, tensor in found.items()
        if name not in own
    ]
    notes = dict.fromkeys(note for _, _, note in judged if note)
    copied = {fate.name for fate in fates if fate.group in ("loaded", "by class name")}
    notes |= dict.fromkeys(_about_numbers({name: found[name] for name in found if name in copied}, own))
    matches = [match for _, match, _ in judged if match is not None]
    return WeightsReport(fates=tuple(fates), classes=matches[0] if matches else None, notes=tuple(notes))


def _judge(
    name: str,
    own: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    class_rows: ClassRows | None,
    classes: Names,
) -> tuple[Fate, ClassMatch | None, str]:
    """What becomes of a tensor of the model; how its classes were told, and what is to be said of that."""
    mine, theirs = own[name], found.get(name)
    shape = tuple(mine.shape)
    if theirs is None:
        if twin := _shared_with(name, own, found):
            return Fate(name=name, group="loaded", model=shape, reason=f"shared with {twin}"), None, ""
        reason = "not in the file: keeps its initial values"
        return Fate(name=name, group="missing", model=shape, reason=reason), None, ""
    other = tuple(theirs.shape)
    reason, match, note = _difference(mine, theirs), None, ""
    if not reason and class_rows is not None and name in class_rows.tensors and shape and shape[1:] == other[1:]:
        reason, match, note = _by_class(class_rows.names, classes, rows=(len(mine), len(theirs)))
    elif not reason and shape != other:
        reason = "another shape: keeps its initial values"
    group: Group = "misfit" if reason else "by class name" if match else "loaded"
    return Fate(name=name, group=group, model=shape, file=other, reason=reason), match, note


def _by_class(ours: Names, theirs: Names, *, rows: tuple[int, int]) -> tuple[str, ClassMatch | None, str]:
    """Why the rows of classes cannot be taken over, or how they are told by name, or a word on taking them in order."""
    mine, others = rows
    why = why_not_by_name(ours, theirs, rows=others)
    if not why and len(ours) == mine:
        match = match_classes(ours, theirs)
        if not match.taken:
            return f"no class in common with the file ({', '.join(theirs)}): keeps its initial values", None, ""
        return "", match if ours != theirs else None, ""
    if mine != others:
        return f"{mine} classes here, {others} in the file, and {why}: keeps its initial values", None, ""
    return "", None, f"the rows of the {mine} classes are taken in their order: {why}"


def _difference(mine: Tensor, theirs: Tensor) -> str:
    """Why values of one type cannot stand for the other; empty when they can."""
    of_kind = {kind: (kind(mine), kind(theirs)) for kind in (torch.is_complex, torch.is_floating_point)}
    if all(here == there for here, there in of_kind.values()):
        return ""
    whole = of_kind[torch.is_floating_point] == (False, True) and not torch.is_complex(mine)
    if whole and not theirs.is_meta and bool((theirs == theirs.to(mine.dtype)).all()):
        return ""  # a counter that was halved with all the rest
    return f"{_dtype(mine)} here, {_dtype(theirs)} in the file: keeps its initial values"


def _about_numbers(copied: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """What has to be said of the precision and the values of what is copied."""
    changed = Counter((_dtype(t), _dtype(own[name])) for name, t in copied.items() if t.dtype != own[name].dtype)
    notes = [f"converted: {counted(n, 'tensor')} from {theirs} to {mine}" for (theirs, mine), n in changed.items()]
    broken = [n for n, t in copied.items() if torch.is_floating_point(t) and not t.is_meta and not _finite(t)]
    if broken:
        notes.append(f"warning: {counted(len(broken), 'tensor')} with NaN or infinity, first {broken[0]}")
    return notes


def _converted(report: WeightsReport, own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What each tensor of the model becomes, in its type and on its device."""
    copied = (fate for fate in report.fates if fate.group in ("loaded", "by class name") and fate.name in found)
    ready = {fate.name: found[fate.name].to(own[fate.name]) for fate in copied}
    if report.classes is not None:
        mine, theirs = (list(rows) for rows in zip(*report.classes.pairs))
        for name in report.names("by class name"):
            rows = ready[name]
            ready[name] = own[name].detach().clone()
            ready[name][mine] = rows[theirs]
    return ready


def require_usable(
    report: WeightsReport,
    where: object,
    own: Mapping[str, Tensor],
    names: Iterable[str],
    *,
    strict: bool,
    all_used: bool,
) -> None:
    """Raise unless something fits, or all of it where that was asked for; `names` are those of the file."""
    _require_any(report, where, own, names)
    if (strict and not report.fills_model) or (all_used and not report.complete):
        raise Incompatible(
            where,
            "these are not the weights of this model, nothing was loaded:\n  "
            + "\n  ".join(as_lines(report, verb="fit")),
            do="Check the config, or fine-tune without strict." if all_used else "Check the config.",
        )


def _require_any(report: WeightsReport, where: object, own: Mapping[str, Tensor], names: Iterable[str]) -> None:
    copied = (*report.names("loaded"), *report.names("by class name"))
    if any(own[name].is_floating_point() for name in copied) or (copied and not report.names("misfit")):
        return  # counters of batches fit any network of the same kind
    if report.names("misfit"):
        raise Incompatible(
            where,
            "\n  ".join(
                ["the weights of this file do not fit the model, nothing was loaded:", *as_lines(report, verb="fit")]
            ),
            do="Check that the file belongs to a model of this size.",
        )
    raise Refused(
        where,
        "not one tensor of this file fits the model",
        expected=f"names like {next(iter(own), '(none)')}",
        found=next(iter(names), "no tensors"),
        do="Check that the file belongs to this kind of model.",
    )


def spell_as_model(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], rename: Callable[[str], str]
) -> dict[str, Tensor]:
    """A file's tensors under the names of the model; DamagedFile when two of them mean the same one."""
    wrapper = next((each for each in WRAPPERS if own and all(name.startswith(each) for name in own)), "")
    spelled: dict[str, Tensor] = {}
    for raw, tensor in state.items():
        name = rename(raw)
        if name not in own:  # a model may have a child of its own that is called `module`
            name = wrapper + rename(_unwrapped(raw))
        if name in spelled:
            raise DamagedFile(name, "two entries of the weights mean this one tensor", found=raw)
        spelled[name] = tensor
    return spelled


def _unwrapped(name: str) -> str:
    compiled, parallel = WRAPPERS[1], WRAPPERS[0]
    return name.removeprefix(compiled).removeprefix(parallel).removeprefix(compiled)


def _shared_with(name: str, own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """A tensor of the file that is this one of the model under another name: files may keep tied weights once."""
    mine = own[name]
    if mine.is_meta or not mine.numel():
        return ""
    same = (each for each in found if each in own and own[each].data_ptr() == mine.data_ptr())
    fitting = (each for each in same if own[each].shape == mine.shape == found[each].shape)
    return next((each for each in fitting if not _difference(mine, found[each])), "")


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor.float()).all())


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
