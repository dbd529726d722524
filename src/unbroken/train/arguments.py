"""What a script gives to `open_run` and to the methods of a run, checked first; and how its session goes about it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import operator
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import torch

from unbroken.config import Effect, Effects, keys_of, nearest
from unbroken.config.difference import leaves
from unbroken.errors import UsageError
from unbroken.journal.steps import NOT_VALUES
from unbroken.launch.job import AUTO, Host, LaunchOptions, Limit, Quota, SaveEvery
from unbroken.quantities import asked, duration_s, size_bytes
from unbroken.run import Layout
from unbroken.train.cadence import Every
from unbroken.train.data.batching import UNSAID
from unbroken.train.data.loader import OnBad
from unbroken.train.data.order import Shuffle
from unbroken.train.stop import PATIENCE_S, OnTrial

EFFECTS = [effect.value for effect in Effect if effect is not Effect.IGNORED]
LONGEST_SHOWN = 60


def count(where: str, value: Any, *, least: int = 1) -> int:
    """A whole number of things, of whatever type it is; UsageError for anything else."""
    try:
        number = -1 if isinstance(value, bool | torch.Tensor) else operator.index(value)
    except TypeError:
        number = -1
    if number < least:
        do = "It is a number, without quotes." if isinstance(value, str) and value.strip().isdecimal() else ""
        raise UsageError(where, "this is no such number", expected=_at_least(least), found=shown(value), do=do)
    return number


def interval(where: str, every: Any) -> int | None:
    """Every so many steps; None, and 0, for no such reason."""
    return None if every is None else count(where, every, least=0)


def one_of(where: str, value: Any, choices: Sequence[Any]) -> None:
    """Raise UsageError unless a value is one of a few."""
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in choices):
        near = nearest(value, [word for word in choices if isinstance(word, str)]) if isinstance(value, str) else ""
        listed = " or ".join(repr(choice) for choice in choices)
        do = f'Did you mean "{near}"?' if near else ""
        raise UsageError(where, "this is none of the choices", expected=listed, found=shown(value), do=do)


def require_batches(said: Mapping[str, Any], *, accumulate: Any) -> None:
    """Raise UsageError for what no batches can be made of; `said` is what a loop says of them."""
    for name, least in {"batch_size": 1, "workers": 0}.items():
        if name in said and not (name == "batch_size" and said[name] is None):
            count(f"run.batches({name})", said[name], least=least)
    if accumulate is not None:
        count("run.batches(accumulate)", accumulate)
    if "shuffle" in said:
        one_of("run.batches(shuffle)", said["shuffle"], (True, False, *get_args(Shuffle)))


def require_length(*, epochs: Any, steps: Any, within_epoch: bool) -> None:
    """Raise UsageError unless it is said, once, how long to train."""
    if not within_epoch and (epochs is None) == (steps is None):
        found = "neither" if epochs is None else "both"
        raise UsageError("run.batches", "how long to train?", expected="epochs= or steps=", found=found)
    for name, value in {"epochs": epochs, "steps": steps}.items():
        if value is not None:
            count(f"run.batches({name})", value)


def require_settings(
    *, root: Any, config: Any, effects: Any, seed: Any, layout: Any, on_bad: Any, search: Any, counts: Mapping[str, Any]
) -> None:
    """Raise UsageError for an argument of `open_run` that is not what it should be."""
    where = "open_run"
    if not isinstance(root, str | Path) or not str(root):
        raise UsageError(f"{where}(root)", "this is no folder", expected="a path, as text", found=shown(root))
    for name, value in {"config": config, "effects": effects}.items():
        if value is not None and not isinstance(value, Mapping):
            is_object = hasattr(value, "__dict__") and not isinstance(value, type)
            inside = next(
                (f"{name}.{way}()" for way in ("to_dict", "model_dump") if hasattr(value, way)), f"vars({name})"
            )
            do, found = f"Give {name}={inside}." if is_object else "", type(value).__name__
            raise UsageError(f"{where}({name})", "this is no dict", expected="a dict of names", found=found, do=do)
    count(f"{where}(seed)", seed, least=0)
    for name, value in counts.items():
        if value is not None:
            count(f"{where}({name})", value)
    if not isinstance(layout, Layout):
        do = "from unbroken import EPOCHS, ITERATIONS"
        raise UsageError(f"{where}(layout)", "this is no layout", expected="one of these", found=shown(layout), do=do)
    one_of(f"{where}(on_bad)", on_bad, [word for word in get_args(OnBad) if word != "list"])
    if isinstance(search, str | Path):
        do = f'search=["{search}"]'
        raise UsageError(f"{where}(search)", "these are several folders", expected="a list", found=shown(search), do=do)


def seconds(name: str, value: float | str) -> float:
    """An argument of `open_run`: a number of seconds, or text as at the command line; UsageError for any other."""
    where = f"open_run({name})"
    if isinstance(value, str):
        return asked(where, duration_s, value)
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise UsageError(where, "this is no time", expected='seconds, or text like "12h"', found=repr(value)[:60])
    return float(value)


def save_interval(value: float | str | None) -> SaveEvery:
    """What `save_every_s` says: seconds, "auto", or None."""
    return value if value is None or value == AUTO else seconds("save_every_s", value)


def host_of(
    said: Host,
    *,
    session_s: float | str | None,
    reserve_s: float | str,
    quota: str | None,
    search: Sequence[str | Path] | None,
) -> Host:
    """What a script takes from its host where it says nothing else itself; a session of infinity has no end."""
    length_s, least_s = None if session_s is None else seconds("session_s", session_s), seconds("reserve_s", reserve_s)
    limit = said.limit and replace(said.limit, reserve_s=max(said.limit.reserve_s, least_s))
    if length_s is not None:
        limit = Limit(left_s=length_s, reserve_s=least_s, source="session_s") if length_s != math.inf else None
    room = said.quota
    if quota is not None:
        source = "open_run(quota)"
        room = Quota(size_bytes=asked(source, size_bytes, quota), folder=Path.cwd(), source=source)
    return Host(search=said.search if search is None else tuple(map(Path, search)), limit=limit, quota=room)


def as_dict(config: Any) -> Any:
    """A config as dicts and lists: an `argparse.Namespace`, a dataclass, a config of OmegaConf, or these in each other.

    There paths become text, and members of an `Enum` their names. What is none of it stays what it is.
    """
    try:
        return _plain(config, made=False)
    except RecursionError:
        raise UsageError("open_run(config)", "it is nested too deep, or holds itself") from None
    except _errors_of_omegaconf() as error:  # a value that is "???", an interpolation that leads nowhere
        found = str(error).splitlines()[0]
        raise UsageError("open_run(config)", "a value of it cannot be resolved", found=found) from error


def _plain(value: Any, *, made: bool) -> Any:
    """`made`: it lies in what a parser or a type made, and not in a dict that somebody wrote."""
    if isinstance(value, argparse.Namespace | SimpleNamespace):
        return {name: _plain(below, made=True) for name, below in vars(value).items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name), made=True) for each in dataclasses.fields(value)}
    if made and isinstance(value, os.PathLike | Enum):
        return value.name if isinstance(value, Enum) else os.fspath(value)
    made = made or not isinstance(value, dict | list | tuple)
    if isinstance(value, Mapping):
        return {name: _plain(below, made=made) for name, below in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | range | memoryview):
        return [_plain(each, made=made) for each in value]
    return value


def _errors_of_omegaconf() -> tuple[type[Exception], ...]:
    """Nobody has a config of OmegaConf who has not imported it."""
    module = sys.modules.get("omegaconf.errors")
    return (module.OmegaConfBaseException,) if module is not None else ()


def recordable(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config as it will be read back; an error names the key that cannot be kept."""
    for key, value in leaves(config):
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"config[{key!r}]",
                "this cannot be recorded",
                expected="numbers, strings, booleans, None, lists and dicts of these",
                found=f"{type(value).__name__} ({error})",
                do=f"Give {key}.item()." if hasattr(value, "item") else f"Give it as text: str({key}).",
            ) from None
    kept: dict[str, Any] = json.loads(json.dumps(config))
    return kept


def effects_of(named: Mapping[str, str], config: Mapping[str, Any]) -> Effects:
    """What changing each key does; a dotted key is one in a dict of the config."""
    known = dict.fromkeys([*config, *keys_of(config)])
    tree: dict[str, Any] = {}
    for key, effect in named.items():
        one_of(f"open_run(effects[{key!r}])", effect, EFFECTS)
        if key not in known and (near := nearest(key, known)) and near not in named:
            do = f"Did you mean {near!r}?"
            raise UsageError("open_run(effects)", "the config has no such key", found=repr(key), do=do)
        *above, last = [key] if key in config else key.split(".")
        place = tree
        for part in above:
            place = place.setdefault(part, {}).setdefault("below", {})
        place.setdefault(last, {})["own"] = effect
    return Effects(own=Effect.DATA, fields=_nodes(tree), items=Effects(own=Effect.DATA))


def numbers(where: str, values: Mapping[str, Any]) -> dict[str, float]:
    """What a loop wants recorded, as numbers; UsageError names the value that is none."""
    return {name: _number(f"{where}({name}=...)", name, value) for name, value in values.items()}


def logged(where: str, values: Mapping[str, Any]) -> dict[str, float | torch.Tensor]:
    """The same, but a number on a device is copied there: who asks for its value waits for all that leads to it."""
    found: dict[str, float | torch.Tensor] = {}
    for name, value in values.items():
        if name in NOT_VALUES or not isinstance(value, torch.Tensor) or value.numel() != 1:
            found[name] = _number(f"{where}({name}=...)", name, value)
        elif value.is_cpu:
            number = value.item() if value.is_floating_point() else value
            found[name] = number if type(number) is float else _number(f"{where}({name}=...)", name, value)
        else:
            found[name] = value.detach().clone()
    return found


def _number(where: str, name: str, value: Any) -> float:
    if name in NOT_VALUES:
        raise UsageError(where, "each record has a field of this name already", do=f"Call it otherwise: my_{name}=...")
    try:
        if isinstance(value, str | bytes | None):
            raise TypeError
        return float(value.item() if hasattr(value, "item") else value)  # of numpy and torch: one number, or none
    except (TypeError, ValueError, OverflowError, RuntimeError):
        several = "mean" if hasattr(value, "mean") else ""
        do = f"Give one number: {name}.mean()." if several else "Other things belong into run.track, or a file."
        raise UsageError(where, "this is no number", expected="one number", found=shown(value), do=do) from None


def shown(value: Any) -> str:
    """A wrong value in a few words."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of {value.numel()} elements"
    if value is None or isinstance(value, bool | int | float | str | Path):
        words = repr(str(value) if isinstance(value, Path) else value)
        return words if len(words) <= LONGEST_SHOWN else f"{words[:LONGEST_SHOWN]}..."
    return f"a {type(value).__name__}"


def _at_least(least: int) -> str:
    return f"a whole number, {least} or more"


def _nodes(tree: Mapping[str, Any]) -> dict[str, Effects]:
    return {
        name: Effects(
            own=Effect(node["own"]) if "own" in node else Effect.DATA,
            fields=_nodes(node.get("below", {})),
            items=Effects(own=Effect(node["own"]) if "own" in node else Effect.DATA),
        )
        for name, node in tree.items()
    }


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """`save_every_s` in seconds, "auto": by what saves cost, None: not for that reason; `log_every` in steps.

    Asked to stop in the middle of a step, the session waits `patience_s` for the batch that ends it.
    `save_beside` lets a thread write the checkpoints; with `exits`, a refusal ends the process with its exit code.
    """

    every: Every = field(default_factory=Every)
    save_every_s: SaveEvery = None
    log_every: int = 10
    save_beside: bool = False
    exits: bool = False
    patience_s: float = PATIENCE_S
    on_bad: OnBad = "stop"  # a sample that cannot be read: stop, or leave it out and say so
    began_s: float | None = None  # of the session, on the monotonic clock; None: now
    trial: OnTrial | None = None  # of `unbroken prove`
    shards: int | None = None  # that each micro-batch is computed in; None: as recorded, else one for each process

    @classmethod
    def of(cls, said: LaunchOptions, *, exits: bool = False, began_s: float | None = None) -> SessionOptions:
        """Those of a training in earnest: it saves beside its steps."""
        return cls(
            every=Every(steps=said.save_every, epochs=said.save_every_epochs),
            save_every_s=said.save_every_s,
            log_every=said.log_every,
            save_beside=True,
            exits=exits,
            on_bad=said.accidents.on_bad,
            began_s=began_s,
            shards=said.processes.shards,
        )

    def batching(self, loop: Mapping[str, Any]) -> dict[str, Any]:
        """What a loop says of its batches; on trial, as many workers as the trial says."""
        told = self.trial.trial.workers if self.trial is not None else None
        said = {name: value for name, value in loop.items() if value is not UNSAID}
        return {**said, **({} if told is None else {"workers": told})}
