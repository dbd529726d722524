"""The beginning of an epoch that was done before: a session that comes in its middle does it again, for its variables.

The state it goes on from already holds what the beginning changed: a count, a schedule's step, sums that were set to 0
and have grown since. So that state is kept while the loop begins the epoch, and put back before the batches. What
counts from 0 where a session begins, such as `enumerate` over the batches of an epoch that goes on, is said.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Mapping
from types import FrameType, GeneratorType, ModuleType
from typing import Any

from torch import nn

from unbroken.train.state import parts
from unbroken.train.state.modes import buffers_of
from unbroken.train.state.module_attributes import attributes_of, put_back_attributes

DEEPEST = 4  # iterators within iterators: enumerate(tqdm(...)) has three


class EpochBeginning:
    """What is tracked, as it was before the loop began an epoch again."""

    def __init__(self, tracked: Mapping[str, Any]) -> None:
        self._tracked = dict(tracked)
        self._before = {name: copy.deepcopy((parts.state_of(part), buffers_of(part))) for name, part in tracked.items()}
        self._attributes = attributes_of(tracked)
        modules = (module for part in tracked.values() if isinstance(part, nn.Module) for module in part.modules())
        self._modes = [(module, module.training) for module in modules]

    def put_back(self) -> list[str]:
        """Give each part the state that it had; returns the names of those that had another one."""
        changed = [name for name, part in self._tracked.items() if any(parts.differences_of(part, *self._before[name]))]
        parts.restore(
            {name: self._tracked[name] for name in changed},
            {name: self._before[name][0] for name in changed},
            "epoch",
            buffers={name: self._before[name][1] for name in changed},
            beside=self._tracked.values(),
        )
        for module, training in self._modes:
            module.training = training
        return sorted({*changed, *put_back_attributes(self._tracked, self._attributes)})


def is_enumerated(owner: object, code: object) -> bool:
    """Whether an `enumerate` of this process counts what the generator of this code hands out for its owner."""
    return any(leads_to(each, owner, code) for each in gc.get_objects() if type(each) is enumerate)


def leads_to(counter: Any, owner: object, code: object = None) -> bool:
    """Whether an iterator takes what a generator of this owner hands out; of this code, or of any."""
    seen, around = {id(counter)}, gc.get_referents(counter)
    for _ in range(DEEPEST):
        within: list[Any] = []
        for each in around:
            if id(each) in seen or isinstance(each, type | FrameType | ModuleType | str):
                continue
            seen.add(id(each))
            if isinstance(each, GeneratorType):  # of one that is at work its variables tell, not the collector
                held = each.gi_frame.f_locals if each.gi_frame is not None else {}
                if code in (None, each.gi_code) and held.get("self") is owner:
                    return True
                within += held.values()
            else:
                within += gc.get_referents(each)
        around = within
    return False
