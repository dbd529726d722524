"""The beginning of an epoch that was done before: a session that comes in its middle does it again, for its variables.

The state it goes on from already holds what the beginning changed: a count, a schedule's step, sums that were set to 0
and have grown since. So that state is kept while the loop begins the epoch, and put back before the batches.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from unbroken.train import parts
from unbroken.train.buffers import buffers_of
from unbroken.train.module_attributes import attributes_of, put_back_attributes


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
