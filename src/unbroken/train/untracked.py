"""Does anything change that is not tracked? Looked at after the first two steps of a session, and at its saves."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from unbroken.clock import Clock
from unbroken.errors import UsageError
from unbroken.quantities import some_of
from unbroken.train.built_parts import BuiltParts
from unbroken.train.carried import carried
from unbroken.train.feed import AnyFeed
from unbroken.train.forgotten import forgotten, in_words
from unbroken.train.frames import frames_with, is_users_class
from unbroken.train.held import MOST_ITEMS, attributes, inside, reachable, roots
from unbroken.train.module_attributes import Attributes
from unbroken.train.random_holders import random_holders

MOST_NAMED = 8
FEW = 4  # items of a list that counts in place; of a longer one only the length tells
A_DAY_S = 86_400.0
Seen = dict[str, object]  # what tells that a value changed, by the way to it


class Untracked:
    """Looks when the first step is done, for things with a state of their own, after the second one for values, and at
    each save for those that have changed since: at the end of an epoch, say.

    `run` is what the loop goes over: only functions that know it, and those they called, are part of the loop.
    """

    def __init__(
        self, run: object, tracked: Mapping[str, Any], say: Callable[[str], None], clock: Clock, *, strict: bool
    ) -> None:
        self._run, self._tracked, self._say, self._clock, self._strict = run, tracked, say, clock, strict
        self._first: int | None = None
        self._before: Seen | None = None
        self._done = False
        self._named = set[str]()  # so far
        self._dataset: object = None

    def look(self, step: int, feed: AnyFeed | None) -> None:
        """Say what is not tracked, also of the data set; with `strict`, raise UsageError instead."""
        dataset = self._dataset = feed.dataset if feed is not None else None
        self._first = step if self._first is None else self._first
        if self._done or step <= self._first + (self._before is not None):
            return
        try:
            if self._before is None:
                seeded = (
                    [each for _, each in random_holders(dataset, feed.batching.collate)] if feed is not None else []
                )
                found = forgotten(self._tracked, self._roots(dataset), seeded)
                sentences = [f"warning: {each}" for each in in_words(found)]
                self._before = self._values(dataset)
            else:
                self._done = True
                names = sorted({*self._carried(), *self._changed(self._before)})
                sentences = [f"note: {_in_words(names, 'from step to step')}"] if names else []
        except Exception as error:  # noqa: BLE001 - a thing of the script's may do what it likes when it is looked at
            self._done = True
            sentences = [f"note: what is not tracked could not be looked for ({type(error).__name__}: {error})"]
        self._report(sentences)

    def look_again(self, attributes: Attributes, built: BuiltParts) -> None:
        """A save comes: name what has changed meanwhile and is in none, or in this one alone, as other layers are.

        `attributes` are those of tracked modules, `built` their weights.
        """
        for change in built.changes():
            self._say(change)
        try:
            names = [*attributes.lost(), *(self._changed(self._before) if self._done and self._before else ())]
        except Exception:  # noqa: BLE001 - as above; that it could not be looked at was said
            return
        if names:
            self._say(f"note: {_in_words(names, 'in this training')}")

    def _changed(self, before: Seen) -> list[str]:
        """The values that are not what they were after the first step, each once."""
        now = self._values(self._dataset)
        names = [
            name
            for name, value in now.items()
            if name not in self._named and before.get(name, value) != value
            if not (name.endswith("]") and before[name][0] != value[0])  # type: ignore[index]  # of another dict or list
        ]
        self._named.update(names)
        return names

    def _report(self, sentences: Sequence[str]) -> None:
        if sentences and self._strict:
            raise UsageError(
                "run.track",
                "not everything that changes is tracked, and strict=True asks for that",
                found="\n  ".join(sentences),
                do="Track it: run.track(name=...); plain values in a dict: run.track(counters={...}).",
            )
        for sentence in sentences:
            self._say(sentence)

    def _roots(self, dataset: object) -> list[tuple[str, Any]]:
        return [*roots(frames_with(self._run)), ("dataset", dataset)]

    def _carried(self) -> list[str]:
        """Variables that the loop takes from one step into the next."""
        known, now_s = inside(self._tracked.values()), self._clock.now().timestamp()
        return [
            name
            for frame in frames_with(self._run)
            for name in carried(frame)
            if id(value := frame.f_locals.get(name)) not in known
            and not isinstance(value, Optimizer | nn.Module)
            and not (isinstance(value, float) and abs(value - now_s) < A_DAY_S)  # it tells the time
        ]

    def _values(self, dataset: object) -> Seen:
        """The plain attributes of the script's own things, what its dicts count, and the lengths of its lists."""
        known, found = inside(self._tracked.values()), Seen()
        for path, value in reachable(self._roots(dataset)):
            if id(value) in known or value is self._run:
                continue
            if isinstance(value, list | deque | dict) and "[" not in path:
                found[path] = len(value)
                items = dict.items(value) if isinstance(value, dict) else enumerate(value if len(value) <= FEW else ())
                plain = ((key, item) for key, item in islice(items, MOST_ITEMS) if isinstance(item, int | float | str))
                found |= {f"{path}[{key!r}]": (id(value), repr(item)) for key, item in plain}
            elif is_users_class(type(value)):
                found |= {
                    f"{path}.{name}": each for name, item in attributes(value) if (each := _plain(item)) is not None
                }
        return found


def _plain(value: Any) -> object:
    """What tells one value from another; None for what is no value."""
    match value:
        case float():
            return repr(value)  # a NaN is itself
        case bool() | int() | str() | np.number():
            return value
        case torch.Tensor():
            return id(value), value._version
    return None


def _in_words(names: Sequence[str], when: str) -> str:
    listed = some_of([f"`{name}`" for name in names], MOST_NAMED)
    change = "changes" if len(names) == 1 else "change"
    is_not = "is not" if len(names) == 1 else "are not"
    return (
        f"{listed} {change} {when} and {is_not} tracked: a resumed session begins with what stands "
        "there before the loop"
    )
