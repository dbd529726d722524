"""The entry `unbroken` of a checkpoint as a typed value: the one place where what it says is believed.

Whoever decides by such an entry, or loads what it describes, reads it here first. A field that is missing or is not
what was written is damage, named with the file and the field; nothing later has to ask again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from unbroken.checkpoint import FORMAT
from unbroken.checkpoint.describe import summary
from unbroken.checkpoint.entries import LOCAL_HEADER, LOCAL_SIGNATURE
from unbroken.checkpoint.kinds import STAMP
from unbroken.checkpoint.sharded import are_chunks, are_shards, head_of, is_sharded
from unbroken.checkpoint.structure import Structure
from unbroken.checkpoint.tree import MAX_DEPTH, TensorRef
from unbroken.checkpoint.unpickle import read_pickle
from unbroken.errors import DamagedFile
from unbroken.fields import count_of
from unbroken.storage import open_ordinary
from unbroken.text import printable

STORED = 0  # how an entry is packed that is not
MOST_ENTRIES = 100_000  # of a list that grows by one for each accident or accepted change of a run's life
MOST_CHARACTERS = 10_000  # of a name, a time or a sentence
MOST_THREADS = 4096


@dataclass(frozen=True, kw_only=True)
class RunStamp:
    """Which run a file is of, and the seed it began from."""

    id: str
    seed: int
    recipe: str = ""
    tag: str = ""


@dataclass(frozen=True, kw_only=True)
class BestStamp:
    """The best evaluation up to the file's step."""

    metric: str
    value: float
    step: int


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """What a file of ours says about itself; a weights file has no `tracked` state and no `parts`.

    `parts` hold references to tensors, not their numbers.
    """

    kind: Literal["checkpoint", "weights"]
    step: int
    save: str
    run: RunStamp
    session: str = ""
    time: str = ""
    version: str = ""
    conditions: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    lr: float | None = None
    total: int | None = None
    processes: int = 1
    shards: int = 0
    samples_per_step: int | None = None
    steps_per_epoch: int | None = None
    position: int = 0
    dataset_size: int = 0
    epoch: int = 0
    closed_epochs: int = 0
    begun_epochs: int = 0
    ended: str = ""
    order: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    evaluated_step: int = 0
    best: BestStamp | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    extension: Mapping[str, Any] | None = None
    accepted: tuple[Mapping[str, Any], ...] = ()
    skipped: int = 0
    divisions: tuple[Mapping[str, Any], ...] = ()
    excluded: tuple[tuple[int, int], ...] = ()
    not_finite: int = 0
    tracked: tuple[str, ...] = ()
    parts: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Any] = field(default_factory=dict)
    scalars: Mapping[str, Any] = field(default_factory=dict)
    beside: Mapping[str, Any] = field(default_factory=dict)
    regrouped: Mapping[str, Any] = field(default_factory=dict)
    buffers: Mapping[str, Any] = field(default_factory=dict)
    gradients: Mapping[str, Any] = field(default_factory=dict)
    modes: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    learning: Mapping[str, bool] = field(default_factory=dict)
    parameter_names: Mapping[str, Any] = field(default_factory=dict)
    built_with: Mapping[str, Any] = field(default_factory=dict)
    shard_files: Mapping[str, Any] = field(default_factory=dict)
    chunks: Mapping[str, Any] = field(default_factory=dict)


def checked_stamp(structure: Structure) -> Stamp | None:
    """The entry `unbroken` of a file; None in a file of another program, DamagedFile where a field is not sound."""
    tree = structure.tree
    if not isinstance(tree, dict) or STAMP not in tree:
        return None
    stamp = tree[STAMP]
    if not isinstance(stamp, dict):
        raise _misfit(structure, "", "a mapping", stamp)
    for name, rule in RULES.items():
        _check(structure, stamp, name, rule)
    extra = [name for name in stamp.get("parts", ()) if name not in stamp.get("tracked", ())]
    if extra:
        what = f"the entry {STAMP}.parts has {summary(extra[0])}, which {STAMP}.tracked does not name"
        raise DamagedFile(structure.path, what)
    return _as_value(stamp)


def read_stamp(path: Path) -> Mapping[str, Any]:
    """The `unbroken` entry of a checkpoint, whole or cut off; empty for files of others, and where it is gone.

    Also of a file whose end is missing: `torch.save` puts the pickle first. Nothing in it is checked.
    """
    try:
        with open_ordinary(head_of(path) if is_sharded(path) else path) as file:
            head = file.read(LOCAL_HEADER.size)
            if len(head) < LOCAL_HEADER.size or not head.startswith(LOCAL_SIGNATURE):
                return {}
            _, _, _, method, *_, name_bytes, extra_bytes = LOCAL_HEADER.unpack(head)
            if method != STORED or not file.read(name_bytes).endswith(b"/data.pkl"):
                return {}
            file.seek(extra_bytes, 1)
            tree = read_pickle(file, where=path).value
    except (OSError, DamagedFile):
        return {}
    stamp = tree.get(STAMP) if isinstance(tree, dict) else None
    return stamp if isinstance(stamp, dict) else {}


@dataclass(frozen=True)
class Rule:
    """What a field is: in words, as a test, and whether a file can be without it.

    A field below another, such as `best.step`, is looked at where that one is a mapping.
    """

    expected: str
    holds: Callable[[Any], bool]
    needed: Literal["always", "to train", "never"] = "never"


def _check(structure: Structure, stamp: Mapping[Any, Any], name: str, rule: Rule) -> None:
    above, _, own = name.rpartition(".")
    holder = stamp.get(above) if above else stamp
    if not isinstance(holder, dict):
        return
    if own in holder:
        if not rule.holds(holder[own]):
            raise _misfit(structure, name, rule.expected, holder[own])
    elif rule.needed == "always" or (rule.needed == "to train" and stamp["kind"] == "checkpoint"):
        raise DamagedFile(structure.path, f"the entry {STAMP}.{name} is missing", expected=rule.expected)


def _misfit(structure: Structure, name: str, expected: str, found: object) -> DamagedFile:
    what = f"the entry {STAMP}.{name} is not sound" if name else f"the entry {STAMP} is not sound"
    return DamagedFile(structure.path, what, expected=expected, found=printable(summary(found)))


def _as_value(stamp: Mapping[str, Any]) -> Stamp:
    known: dict[str, Any] = {item.name: stamp[item.name] for item in fields(Stamp) if item.name in stamp}
    run, best = known["run"], known.get("best")
    values: dict[str, Any] = {
        "run": RunStamp(**{item.name: run[item.name] for item in fields(RunStamp) if item.name in run}),
        "best": BestStamp(**{item.name: best[item.name] for item in fields(BestStamp)}) if best else None,
        "excluded": tuple((epoch, sample) for epoch, sample in known.get("excluded", ())),
    }
    rows: dict[str, Any] = {name: tuple(known[name]) for name in ("accepted", "divisions", "tracked") if name in known}
    return Stamp(**(known | values | rows))


# -- what a field may be ---------------------------------------------------------------------------------------------


def _count(value: object) -> bool:
    return count_of(value) is not None


def _whole(value: object) -> bool:
    return type(value) is int and abs(value) < 2**63


def _number(value: object) -> bool:
    return type(value) is float or _whole(value)


def _text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MOST_CHARACTERS


def _or_none(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or holds(value)


def _list_of(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) <= MOST_ENTRIES and all(map(holds, value))


def _row(**rules: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """A mapping that has these entries, each of its kind."""
    return lambda value: (
        isinstance(value, dict) and all(name in value and holds(value[name]) for name, holds in rules.items())
    )


def _by_name(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(_text, value)) and all(map(holds, value.values()))


def _plain(value: object) -> bool:
    """Plain data under plain keys: what JSON and a config can hold. The tree is known to end, and not deep."""
    if isinstance(value, dict):
        return all(type(key) in (str, int, float, bool) and _plain(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(map(_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def _plain_mapping(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value) and _plain(value)


def _order(value: Any) -> bool:
    """A shuffle and whether it is keyed; a sampler and a checksum of what it drew; a stream and how far it is."""
    match value:
        case {"shuffle": "epoch" | "stream" | "none", "keyed": bool()} | {"drawn": str(), "crc32": int()}:
            return len(value) == 2
        case {"stream": str(), "by": "state" | "count", **rest}:
            return set(rest) == {"passes", "used", "batch_size", "workers"} and all(map(_count, rest.values()))
    return isinstance(value, dict) and not value


def _names(value: Any) -> bool:
    return _list_of(_text)(value) and len(set(value)) == len(value)


def _settings(value: Any) -> bool:
    """Of an optimizer by group, with a number as the rate of each; of a schedule by name."""
    groups = value if isinstance(value, list) else [value]
    return all(isinstance(group, dict) and _number(group.get("lr", 0.0)) for group in groups)


def _names_by_group(value: Any) -> bool:
    """One without a name is called ""."""
    return _list_of(_list_of(_text))(value) and _names([name for group in value for name in group if name])


def _is_path(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= MAX_DEPTH
        and all(type(key) in (str, int, float, bool) for key in value)
    )


def _every(kind: str, names: str, holds: Callable[[Any], bool]) -> Iterator[tuple[str, Rule]]:
    for name in names.split():
        yield name, Rule(kind, holds)


RULES: dict[str, Rule] = {
    "format": Rule(f"1 to {FORMAT}", lambda value: type(value) is int and 1 <= value <= FORMAT, "always"),
    "kind": Rule("checkpoint or weights", lambda value: value in ("checkpoint", "weights"), "always"),
    "step": Rule("a number of steps", _count, "always"),
    "save": Rule("the name of the save", _text, "always"),
    "run": Rule("a mapping", lambda value: isinstance(value, dict), "always"),
    "run.id": Rule("the name of the run", _text, "always"),
    "run.seed": Rule("a whole number", _whole, "always"),
    **dict(_every("text", "session time version fingerprint part ended run.recipe run.tag", _text)),
    **dict(
        _every(
            "a whole number",
            "epoch closed_epochs begun_epochs evaluated_step skipped not_finite processes shards batch_size",
            _count,
        )
    ),
    **dict(_every("a whole number or none", "total samples_per_step steps_per_epoch", _or_none(_count))),
    "config": Rule("plain settings by name", lambda value: isinstance(value, dict) and _plain(value)),
    "conditions": Rule("plain facts by name", _plain_mapping),
    "conditions.threads": Rule(f"1 to {MOST_THREADS}", lambda value: type(value) is int and 1 <= value <= MOST_THREADS),
    "lr": Rule("a number or none", _or_none(_number)),
    "position": Rule("a number of samples", _count, "to train"),
    "dataset_size": Rule("a number of samples", _count, "to train"),
    "order": Rule("how the samples of an epoch are ordered", _order),
    "best": Rule("metric, value and step", _or_none(_row(metric=_text, value=_number, step=_count))),
    "metrics": Rule(
        "numbers by name", lambda value: _plain_mapping(value) and all(_number(number) for number in value.values())
    ),
    "extension": Rule("plain settings by name or none", _or_none(_plain_mapping)),
    "accepted": Rule("a list of step, key and words", _list_of(_row(step=_count, key=_text, words=_text))),
    "divisions": Rule(
        "a list of step, micro_batch and recompute",
        _list_of(
            _row(
                step=_count,
                micro_batch=lambda value: _count(value) and value > 0,
                recompute=lambda value: type(value) is bool,
            )
        ),
    ),
    "excluded": Rule(
        "a list of pairs of epoch and sample",
        _list_of(lambda value: isinstance(value, list) and len(value) == 2 and all(map(_count, value))),
    ),
    "tracked": Rule("names, each once", _names, "to train"),
    "parts": Rule("states by name", lambda value: isinstance(value, dict), "to train"),
    "arrays": Rule("places by name", _by_name(_list_of(_is_path))),
    "scalars": Rule("types and places by name", _by_name(_list_of(lambda value: _is_path(value) and len(value) > 0))),
    "beside": Rule("names by name", _by_name(_names)),
    "buffers": Rule("tensors by name, by name", _by_name(_by_name(lambda value: isinstance(value, TensorRef)))),
    "gradients": Rule("tensors by name", _by_name(lambda value: isinstance(value, TensorRef))),
    "modes": Rule("names of modules, each once, by name", _by_name(_names)),
    "attributes": Rule("values by name, by name", _by_name(_by_name(lambda _value: True))),
    "learning": Rule("true or false by name", _by_name(lambda value: type(value) is bool)),
    "built_with": Rule("settings by group, by name", _by_name(_settings)),
    "shard_files": Rule("size and digest by file", are_shards),
    "chunks": Rule("file, place, length, offsets and sizes of each part by tensor", are_chunks),
    "parameter_names": Rule("names of each group, each once, by name", _by_name(_names_by_group)),
    "regrouped": Rule(
        "numbers, param_groups and state by name",
        _by_name(
            _row(
                numbers=_list_of(_count),
                param_groups=_list_of(lambda value: isinstance(value, dict)),
                state=lambda value: isinstance(value, dict) and all(map(_count, value)),
            )
        ),
    ),
}
