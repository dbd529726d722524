"""The checkpoint that a run continues from: looked at first, loaded only when everything fits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from unbroken.checkpoint.kept import kept_of
from unbroken.checkpoint.stamp import checked_stamp
from unbroken.checkpoint.structure import read_structure
from unbroken.run import Layout
from unbroken.train.data.takeover import (
    ABSENT,
    Foreign,
    Translate,
    Translated,
    as_they_are,
    under_present_names,
    what_it_lacks,
)
from unbroken.train.progress import Progress
from unbroken.train.state import parts
from unbroken.train.state.contents import SavedState, take_apart
from unbroken.train.state.hyperparameters import apply_changes, settings_in_words
from unbroken.train.state.modes import buffers_of, put_modes
from unbroken.train.state.module_attributes import misplaced, put_attributes
from unbroken.train.state.optimizer_state import match, parameter_names, rates_in_order
from unbroken.train.state.placement import mesh_of
from unbroken.train.state.serialise import load_tree
from unbroken.train.state.state_checks import require_sound

WORDS = {"scheduler": "lr_scheduler"}  # as the guides' log lines call it


class Source:
    """A checkpoint file, opened without its numbers; `restore` loads them once the parts are known to fit."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path = path
        self._layout = layout
        self._kept = kept_of(path)  # what the launch has verified is not read again
        self._structure = replace(self._kept.structure, path=path) if self._kept else read_structure(path)
        checked_stamp(self._structure)
        self._looked_at = take_apart(layout, self._structure.tree, path)
        self._loaded: SavedState | None = None
        self._optional: frozenset[str] = frozenset()
        self._restored: dict[str, Any] = {}
        self._applied: list[str] = []

    @property
    def foreign(self) -> Foreign | None:
        """What another program's file says about its place in the data; None for a file that unbroken wrote."""
        if self._looked_at.own:
            return None
        progress, names = self.progress, self._layout.checkpoint_name
        by_epochs = "model_state" in self._structure.tree  # OpenPCDet's; MMEngine counts iterations
        milestone = names.format(step=progress.step, epoch=progress.closed_epochs)
        return Foreign(
            step=progress.step,
            epochs=progress.closed_epochs if by_epochs else None,
            ends_epoch=by_epochs and "{epoch}" in names and self.path.name == milestone,
        )

    @property
    def had_streams(self) -> bool:
        """Whether the file is of a version that kept the states of random streams; they are not used any more."""
        return self._looked_at.had_streams

    @property
    def progress(self) -> Progress:
        """How far the run was."""
        return self._looked_at.progress

    def restore(
        self,
        tracked: Mapping[str, Any],
        say: Callable[[str], None],
        translate: Translate = as_they_are,
        *,
        rename: Callable[[str], str] = str,
        optional: Collection[str] = (),
    ) -> None:
        """Load the states of these parts, or raise with all that does not fit.

        `rename` gives the present name of a tensor of the model, `translate` spells the parts of another program's file
        as ours: both before anything is loaded, and what is loaded. Those that are `optional` begin new where the file
        has them not.
        """
        self._optional = frozenset(optional)
        named = under_present_names(self._looked_at.parts, rename)
        if self._looked_at.own:  # of parts that only we have, another program knew nothing: they begin new
            for name in [name for name in tracked if name not in self._looked_at.parts and name in self._optional]:
                say(ABSENT.get(name, f"the file has no state of {name}: it begins new"))
        tracked = self.fitting(tracked, translate, rename=rename, optional=optional)
        loaded, first = self._loaded, self._loaded is None
        if loaded is None:
            mesh = mesh_of(tracked.values())
            loaded = take_apart(self._layout, load_tree(self._structure, mesh, verified=self._kept), self.path)
            self._kept = None
            loaded = _renamed(loaded, rename)
        spelled = self._spelled(loaded, translate)
        everything, _, by_order = self._in_own_order(self._restored | tracked, spelled.parts)
        again = self._changed_since(everything, loaded.extra.buffers)
        parts.restore(
            tracked | again,
            everything,
            self.path,
            buffers=loaded.extra.buffers,
            beside=self._restored.values(),
            ours=loaded.own,
        )
        gone = [
            *put_modes(tracked, loaded.extra.modes),
            *put_attributes(tracked, loaded.extra.attributes, loaded.extra.learning),
        ]
        self._loaded = loaded
        # With their numbers.
        self.progress.stream, self.progress.drawn = loaded.progress.stream, loaded.progress.drawn
        self._restored |= tracked
        if first:  # only now, as a part may still refuse its state
            say(f"load checkpoint from {self.path}")
            epoch = self.progress.epoch or self.progress.closed_epochs  # a foreign file has no position yet
            say(f"resumed epoch: {epoch}, iter: {self.progress.step}")
        for name in again:
            say(f"{name} was changed after it was restored, as a new schedule does: it is restored again")
        for name, part in tracked.items():
            say(f"resume {WORDS.get(name, name)}: {parts.class_name(part)}")
        for remark in (*named.remarks, *spelled.remarks, *by_order, *gone, *self._absent(tracked)):
            say(remark)

    @property
    def gradients(self) -> Mapping[str, torch.Tensor]:
        """The gradients that the next step uses; everything is restored."""
        return self._loaded.extra.gradients if self._loaded is not None else {}

    def apply_changes(self, built: Mapping[str, Any], say: Callable[[str], None]) -> None:
        """Apply what the parts are built with now and were not when the run began; says so once."""
        recorded = dict(self._looked_at.extra.built_with)
        for name, own in parameter_names(self._restored).items():
            if name in recorded and name in self._looked_at.extra.parameter_names:
                groups = match(self._looked_at.parts[name], self._looked_at.extra.parameter_names[name], own).groups
                recorded[name] = [recorded[name][place] for place in groups] if groups else recorded[name]
        for line in apply_changes(self._restored, built, recorded):
            if line not in self._applied:
                self._applied.append(line)
                say(line)

    def fitting(
        self,
        tracked: Mapping[str, Any],
        translate: Translate,
        *,
        rename: Callable[[str], str],
        optional: Collection[str],
    ) -> dict[str, Any]:
        """Those of the parts that have a state in the file; raises with all of it that does not fit. Loads nothing."""
        self._looked_at = _renamed(self._looked_at, rename)
        known = self._spelled(self._looked_at, translate).parts
        may_lack = tracked if not self._looked_at.own else optional
        found = {name: part for name, part in tracked.items() if name in known or name not in may_lack}
        states = {name: known[name] for name in found if name in known}
        require_sound(found, states, self.path)
        states, problems, _ = self._in_own_order(found, states)
        for name, values in self._looked_at.extra.attributes.items():
            problems += misplaced(name, found.get(name), values)
        parts.check(found, states, str(self.path), self._looked_at.extra.buffers, problems)
        return found

    def remarks(self, translate: Translate) -> tuple[str, ...]:
        """What is to be said of another program's file, as far as its numbers do not matter."""
        return self._spelled(self._looked_at, translate).remarks

    def require_all_used(self, tracked: Mapping[str, Any]) -> None:
        """Raise unless every part in the checkpoint is tracked: what is not would be lost at the next save."""
        if self._looked_at.own:
            saved = self._looked_at.parts
            new = {name for name in tracked if name not in saved and name in self._optional}
            gone = {name for name in saved if name not in tracked and name in self._optional}
            kept = {name: part for name, part in tracked.items() if name not in new}
            states = {name: state for name, state in saved.items() if name not in gone}
            states, problems, _ = self._in_own_order(kept, states)
            parts.check(kept, states, str(self.path), known=problems)

    def lacks(self, tracked: Mapping[str, Any], *, config_known: bool) -> list[str]:
        """What another program's file does not hold of all that a checkpoint of ours would, a line for each."""
        absent = [name for name in tracked if name not in self._restored and name not in self._looked_at.parts]
        return what_it_lacks(absent, best_known=self.progress.best is not None, config_known=config_known)

    def _changed_since(self, states: Mapping[str, Any], buffers: parts.States) -> dict[str, Any]:
        """The optimizers that do not have their saved state any more: who makes a schedule sets their rates."""
        return {
            name: part
            for name, part in self._restored.items()
            if isinstance(part, Optimizer) and self._looked_at.own and name in states
            if any(parts.differences_of(part, states[name], buffers.get(name, {})))
        }

    def _in_own_order(
        self, tracked: Mapping[str, Any], states: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[str], list[str]]:
        """The states of optimizers and schedules in the order that groups and parameters have here; problems, remarks.

        They are known by their names in everything that is tracked so far.
        """
        states, problems, remarks = dict(states), list[str](), list[str]()
        known = self._restored | dict(tracked)
        for name, own in parameter_names(known).items() if self._looked_at.own else ():
            saved = self._looked_at.extra.parameter_names.get(name)
            if name not in self._looked_at.parts:
                continue
            if saved is None:
                remarks += [f"the file names no parameters of {name}: their order counts"] if name in tracked else []
                continue
            matched = match(states.get(name, self._looked_at.parts[name]), saved, own)
            if name in tracked:
                states[name] = matched.state
                problems += [f"{name}: {problem}" for problem in matched.problems]
                if matched.unnamed:
                    which = "parameter is" if matched.unnamed == 1 else "parameters are"
                    remarks.append(f"{name}: {matched.unnamed} {which} in nothing that is tracked: the order counts")
            for schedule in [each for each in tracked if matched.groups and each in states]:
                if getattr(tracked[schedule], "optimizer", None) is known[name]:
                    states[schedule] = rates_in_order(tracked[schedule], states[schedule], matched.groups)
                    if states[schedule] is None:
                        problems.append(
                            f"{schedule}: the groups of {name} have another order now, and it cannot follow"
                        )
        return states, problems, remarks

    def _absent(self, tracked: Mapping[str, Any]) -> Iterator[str]:
        """What is to be said of what a file of an earlier version does not hold."""
        for name, part in tracked.items() if self._looked_at.own else ():
            if isinstance(part, Optimizer | LRScheduler) and name not in self._looked_at.extra.built_with:
                settings = f"{settings_in_words(part)} count" if isinstance(part, Optimizer) else "its settings count"
                yield (
                    f"the file is of a version that did not keep what {name} was built with: {settings}, as restored, "
                    "and what was changed of them since cannot be told"
                )
            saved = self._looked_at.extra.buffers.get(name, {})
            if absent := [each for each in buffers_of(part) if each not in saved]:
                more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
                yield f"the file has no buffer {name}.{absent[0]}{more} (persistent=False): it is as it was built"

    def _spelled(self, saved: SavedState, translate: Translate) -> Translated:
        return Translated(parts=saved.parts) if saved.own else translate(saved.parts, str(self.path))


def _renamed(saved: SavedState, rename: Callable[[str], str]) -> SavedState:
    """The same with the names of the model's tensors as they are now."""

    def present(name: str) -> str:
        return f"model.{rename(name.removeprefix('model.'))}" if name.startswith("model.") else name

    extra = replace(
        saved.extra,
        buffers=under_present_names(saved.extra.buffers, rename).parts,
        gradients={present(name): gradient for name, gradient in saved.extra.gradients.items()},
        parameter_names={
            optimizer: [[present(name) for name in group] for group in groups]
            for optimizer, groups in saved.extra.parameter_names.items()
        },
    )
    return replace(saved, parts=under_present_names(saved.parts, rename).parts, extra=extra)
