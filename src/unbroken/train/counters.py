"""Counters that begin at 0 where a session does: `enumerate` over the batches of an epoch that goes on."""

from __future__ import annotations

import gc
from types import FrameType, GeneratorType, ModuleType
from typing import Any

DEEPEST = 4  # iterators within iterators: enumerate(tqdm(...)) has three


def is_enumerated(owner: object, code: object) -> bool:
    """Whether an `enumerate` of this process counts what the generator of this code hands out for its owner."""
    return any(_leads_to(each, owner, code) for each in gc.get_objects() if type(each) is enumerate)


def _leads_to(counter: Any, owner: object, code: object) -> bool:
    seen, around = {id(counter)}, gc.get_referents(counter)
    for _ in range(DEEPEST):
        within: list[Any] = []
        for each in around:
            if id(each) in seen or isinstance(each, type | FrameType | ModuleType | str):
                continue
            seen.add(id(each))
            if isinstance(each, GeneratorType):  # of one that is at work its variables tell, not the collector
                held = each.gi_frame.f_locals if each.gi_frame is not None else {}
                if each.gi_code is code and held.get("self") is owner:
                    return True
                within += held.values()
            else:
                within += gc.get_referents(each)
        around = within
    return False
