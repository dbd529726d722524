"""The page of the public names: `docs/build.py` writes `api.md` with what this file reads in the docstrings.

A docstring has a summary, text, and below `Args:`, `Returns:`, `Yields:`, `Raises:` and `Example:` what these hold; the
arguments of a value are its fields. What a constant or a member of an enumeration means stands in a comment beside it.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

SECTION = re.compile(r"^(Args|Returns|Yields|Raises|Example):\n", re.MULTILINE)
ENTRY = re.compile(r"^(\*{0,2}\w+):\s+(.*(?:\n[ \t]+.*)*)", re.MULTILINE)
MADE_ELSEWHERE = {"TrainingRun"}  # by `open_run` and `launch`: nobody calls the class
LINE = 110
QUOTES = "'\""
# Every public name under the heading where a reader looks for it, with the door that it is imported through.
GROUPS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "Your own loop": (
        "What a script needs ([own-loop](own-loop.md)). In the examples `run` is an open run, `data` a data set, "
        "and `train_on` computes the loss of a batch and steps.",
        {
            "unbroken": "open_run",
            "unbroken.train": "TrainingRun Every Exit PlainConsole",
            "unbroken.prove": "prove Settings Proof",
        },
    ),
    "State and randomness": (
        "What helps a loop, or its validation, to leave the training's state alone, and to compare two states.",
        {
            "unbroken.train": """
                Progress evaluating preserved ConfiguredScaler GroupSettings read_checkpoint differences count_tensors
            """
        },
    ),
    "Data": (
        "Reading a data set outside the training.",
        {"unbroken.train": "one_pass shared_pass check_dataset Checked BadSample spread even_slices this_world World"},
    ),
    "Checkpoints and runs": (
        "Finding the weights of a run, taking them over, and looking at what was recorded.",
        {
            "unbroken.train": """
                named_checkpoint furthest_checkpoint find_checkpoint epoch_checkpoints FoundCheckpoint load_weights
                dataset_meta is_training
            """,
            "unbroken": "read_steps read_pickle",
        },
    ),
    "Applications: the launch": (
        "What an application says of a command line of its own ([own-application](own-application.md)), without torch.",
        {
            "unbroken": """
                Recipe Job Start LaunchOptions Later Environment WrittenUnder Extension Blend Layout ITERATIONS EPOCHS
                OptionParser add_common_options
                add_weights_key start_from session_limit disk_quota accidents saves device_name folder require_launcher
                processes ProcessOptions
                __version__
            """,
            "unbroken.cli": "run run_tool",
        },
    ),
    "Applications: the training": (
        "What an application gives to `fit`, and the pieces of it.",
        {
            "unbroken.train": """
                Task BatchSettings GradientSettings Validation Exchange fit run_job launch Accidents Blueprint ClassRows
                Translated Regrouping StepReport console_for
                pick_device decide_by_shapes require_takeover
            """
        },
    ),
    "Configs": (
        "Configs as typed values: read without being executed, checked at once, compared by what a change does.",
        {
            "unbroken.config": """
                Section Effect Since Instead Misfit read_config read_python_text ConfigFile Place set_values
                merge_options validate validate_cached Validated canonical readable_parts check_schema effects Effects
                changes Change worst differences Difference same keys_of value_at ABSENT Absent nearest other_parts
                SUFFIXES Count NotNegative Fraction Rate Positive FromZero OrOne built only
            """
        },
    ),
    "Applications: showing themselves": (
        "Sample data to train on without a download, and a demonstration: a training that is killed and resumed, "
        "and compared with its twin.",
        {
            "unbroken.demo": """
                write_samples typed started train_until steps_done losses_of sessions_of compare_runs say_verdict
                draw_curves
            """
        },
    ),
    "Files": (
        "Files that a power cut leaves whole, and the one way to open what a person names.",
        {
            "unbroken.storage": """
                write_whole write_json durable_write durable_folder point_to Disk WritableFile NotTaken explained
                refusal PARTIAL_SUFFIX open_ordinary read_whole read_json read_typed is_ordinary is_remote
                require_local NotOrdinary Cache loaded_code
            """
        },
    ),
    "Names and words": (
        "Paths made of recorded names, and what people are shown.",
        {
            "unbroken": "place is_name LeadsOut counted some_of size_text text_of NOT_TEXT",
            "unbroken.train": "clock_time shown_time",
        },
    ),
    "Errors": (
        "Each with its exit code, and a real text of each: [errors.md](errors.md).",
        {
            "unbroken.errors": """
                UnbrokenError UsageError NotInstalled ConfigError Refused RunHeld DamagedFile UnreadableSample
                ForeignFile SaveFailed Incompatible NewerFormat WorkersKilled ProcessLost SessionOver
                NOT_EXACT STOPPED INTERRUPTED_TWICE
            """
        },
    ),
}


@dataclass(frozen=True, kw_only=True)
class Docstring:
    """A docstring in its parts."""

    summary: str = ""
    text: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    returns: str = ""
    raises: Mapping[str, str] = field(default_factory=dict)
    example: str = ""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A public name, or a public method of one (`TrainingRun.track`)."""

    module: str
    name: str
    value: Any  # a function, a class, a property, or a constant
    owner: type | None = None

    @property
    def function(self) -> FunctionType | None:
        """What is called: of a class that makes its values by a constructor of its own, that."""
        raw = inspect.unwrap(getattr(self.value, "__func__", self.value))
        if isinstance(raw, FunctionType):
            return raw
        if not isinstance(raw, type) or dataclasses.is_dataclass(raw) or self.name in MADE_ELSEWHERE:
            return None
        made = vars(raw).get("__init__")
        is_listed = issubclass(raw, enum.Enum) or getattr(raw, "_is_protocol", False)  # nobody makes one more
        return made if isinstance(made, FunctionType) and not is_listed else None

    @property
    def docstring(self) -> Docstring:
        """What is said of it; the arguments of a value are its fields."""
        if self.function is None and not isinstance(self.value, type | property):
            return Docstring(summary=comments_in(import_module(self.module), self.name))
        read = docstring_of(self.value.fget if isinstance(self.value, property) else self.value)
        if isinstance(self.value, type) and issubclass(self.value, enum.Enum):
            return dataclasses.replace(read, arguments=members_of(self.value))
        return read

    def is_attribute_of(self, other: Entry) -> bool:
        """Whether it is read from values of another entry, and not called."""
        return isinstance(self.value, property) and self.name.rpartition(".")[0] == other.name

    @property
    def parameters(self) -> list[inspect.Parameter]:
        """What is given to it, without `self`."""
        if isinstance(self.value, type) and dataclasses.is_dataclass(self.value):
            return list(inspect.signature(self.value).parameters.values())
        if self.function is None:
            return []
        found = list(inspect.signature(self.function).parameters.values())
        has_self = isinstance(self.value, type) or (self.owner is not None and not isinstance(self.value, staticmethod))
        return found[1:] if has_self else found


def public() -> dict[str, list[Entry]]:
    """Every public name and method, by the group it stands in."""
    return {
        title: [
            entry
            for module, names in modules.items()
            for name in names.split()
            for entry in _with_methods(Entry(module=module, name=name, value=getattr(import_module(module), name)))
        ]
        for title, (_, modules) in GROUPS.items()
    }


def _with_methods(entry: Entry) -> Iterator[Entry]:
    yield entry
    if not isinstance(entry.value, type):
        return
    named = {name for _, modules in GROUPS.values() for names in modules.values() for name in names.split()}
    ours = [kind for kind in entry.value.__mro__ if kind.__module__.startswith("unbroken.")]
    fields = {each.name for each in dataclasses.fields(entry.value)} if dataclasses.is_dataclass(entry.value) else set()
    for kind in ours:
        if kind is not entry.value and kind.__name__ in named:
            continue  # they are said there
        for name, value in vars(kind).items():
            is_method = isinstance(value, FunctionType | property | classmethod | staticmethod)
            if is_method and not name.startswith("_") and name not in fields:
                yield Entry(module=entry.module, name=f"{entry.name}.{name}", value=value, owner=kind)


# -- reading ---------------------------------------------------------------------------------------------------------


def docstring_of(value: Any) -> Docstring:
    """The docstring of a function or a class in its parts."""
    head, *rest = SECTION.split(inspect.cleandoc(inspect.unwrap(value).__doc__ or "") + "\n")
    sections = {name: textwrap.dedent(body).strip("\n") for name, body in zip(rest[::2], rest[1::2], strict=True)}
    summary, _, text = head.strip().partition("\n\n")
    return Docstring(
        summary=" ".join(summary.split()),
        text=text.strip(),
        arguments=_entries(sections.get("Args", "")),
        returns=" ".join(sections.get("Returns", sections.get("Yields", "")).split()),
        raises=_entries(sections.get("Raises", "")),
        example=sections.get("Example", ""),
    )


def _entries(section: str) -> dict[str, str]:
    return {name: " ".join(text.split()) for name, text in ENTRY.findall(section)}


def members_of(kind: type[enum.Enum]) -> dict[str, str]:
    """What is said of each member of an enumeration, beside it or above it."""
    found = _comments(Path(inspect.getfile(kind)), kind.__name__)
    return {member.name: found.get(member.name, "") for member in kind}


def comments_in(module: Any, name: str) -> str:
    """What is said of a constant, wherever the module has it from."""
    text = Path(inspect.getfile(module)).read_text("utf-8")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module and name in {alias.name for alias in node.names}:
            return comments_in(import_module(node.module), name)
    return _comments(Path(inspect.getfile(module)), "").get(name, "")


@cache
def _comments(path: Path, kind: str) -> dict[str, str]:
    """The comments beside or above the assignments of a class, or of a module."""
    text = path.read_text("utf-8")
    tree: Any = ast.parse(text)
    if kind:
        tree = next(each for each in ast.walk(tree) if isinstance(each, ast.ClassDef) and each.name == kind)
    lines, found = text.splitlines(), dict[str, str]()
    for node in tree.body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                beside = re.search(r"\s{2}# (.*)$", lines[node.end_lineno - 1]) or re.search(
                    r"\s{2}# (.*)$", lines[node.lineno - 1]
                )
                above, at = list[str](), node.lineno - 2
                while at >= 0 and (line := re.match(r"\s*# (?!--)(.*)$", lines[at])):
                    above.insert(0, line[1])
                    at -= 1
                found[name] = " ".join([*above, *([beside[1]] if beside else [])])
    return found


# -- writing ---------------------------------------------------------------------------------------------------------


def api_page(generated: str) -> str:
    """The page: groups, and of each name its signature, what it does, its arguments, what it raises, an example."""
    groups = public()
    anchors = _anchors(groups)
    index = {
        title: ", ".join(anchors[id(entry)] for entry in entries if entry.owner is None)
        for title, entries in groups.items()
    }
    parts = [
        "# The public names",
        generated,
        "[中文：循环中的方法](api-zh.md)",
        "What a script and an application may import; what is not here may change in any version. Six doors lead in: "
        "`unbroken`, `unbroken.train`, `unbroken.config`, `unbroken.storage`, `unbroken.demo` and `unbroken.errors`. "
        "Importing the first costs nothing and loads no torch. Errors of the operating system go on where nothing else "
        "is said.",
        "\n".join(f"- **{title}**: {names}" for title, names in index.items()),
    ]
    for title, entries in groups.items():
        parts += [f"## {title}", GROUPS[title][0]]
        for entry in entries:
            if not isinstance(entry.value, property):
                parts += _written(entry, [each for each in entries if each.is_attribute_of(entry)])
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _anchors(groups: Mapping[str, list[Entry]]) -> dict[int, str]:
    """A link to the heading of each entry: of headings that are spelled alike, all but the first are counted."""
    links, seen = dict[int, str](), Counter[str]()
    for title, entries in groups.items():
        seen[title.lower()] += 1
        for entry in (each for each in entries if not isinstance(each.value, property)):
            anchor = entry.name.replace(".", "").lower()
            count, seen[anchor] = seen[anchor], seen[anchor] + 1
            links[id(entry)] = f"[`{entry.name}`](#{anchor}{f'-{count}' if count else ''})"
    return links


def _written(entry: Entry, attributes: Sequence[Entry]) -> Iterator[str]:
    said, kind = entry.docstring, "argument"
    is_value = isinstance(entry.value, type) and dataclasses.is_dataclass(entry.value)
    yield f"### `{entry.name}`" if entry.owner is None else f"#### `{entry.name}`"
    if entry.owner is None:
        is_plain = isinstance(entry.value, int | str | tuple) and not entry.name.startswith("_")
        worth = f" = `{entry.value!r}`" if is_plain else ""
        code = f", exit code {entry.value.exit_code}" if getattr(entry.value, "exit_code", 0) else ""
        yield f"`from {entry.module} import {entry.name}`{worth}{code}"
    if entry.function is not None and not isinstance(entry.value, type):
        yield f"```python\n{_signature(entry)}\n```"
    yield said.summary
    yield said.text
    rows = {name: name for name in said.arguments}
    if isinstance(entry.value, type):  # it has no line of `def`: types and defaults stand in the table
        kind = "member" if issubclass(entry.value, enum.Enum) else "field" if is_value else "argument"
        rows |= {each.name: _parameter(each) for each in entry.parameters}
    if said.arguments:
        yield _table(kind, {shown: said.arguments.get(name, "") for name, shown in rows.items()})
    if attributes:
        yield _table("attribute", {each.name.rpartition(".")[2]: each.docstring.summary for each in attributes})
    if said.returns:
        yield f"Returns: {said.returns}"
    if said.raises:
        yield "\n".join(f"- raises `{name}`: {text}" for name, text in said.raises.items())
    if said.example:
        yield f"```{'pycon' if '>>>' in said.example else 'python'}\n{said.example}\n```"


def _table(heading: str, rows: Mapping[str, str]) -> str:
    cells = [[f"`{name}`", text] for name, text in rows.items()]
    lines = [" | ".join(each.replace("|", "\\|") for each in row) for row in cells]
    return "\n".join([f"| {heading} | |", "|---|---|", *(f"| {line} |" for line in lines)])


def _signature(entry: Entry) -> str:
    """The line of `def`, or lines where it is long."""
    words, starred = list[str](), False
    for each in entry.parameters:
        if each.kind is each.KEYWORD_ONLY and not starred:
            words.append("*")
        starred = starred or each.kind in (each.KEYWORD_ONLY, each.VAR_POSITIONAL)
        words.append(_parameter(each))
    name, returned = entry.name.rpartition(".")[2], inspect.signature(entry.function).return_annotation
    end = f") -> {str(returned).strip(QUOTES)}: ..."
    line = f"def {name}({', '.join(words)}{end}"
    return line if len(line) <= LINE else f"def {name}(\n" + "".join(f"    {word},\n" for word in words) + end


def _parameter(each: inspect.Parameter) -> str:
    stars = {each.VAR_POSITIONAL: "*", each.VAR_KEYWORD: "**"}.get(each.kind, "")
    type_ = str(each.annotation).strip(QUOTES).replace(" | Unsaid", "").replace("'", '"')
    kind = "" if each.annotation is each.empty else f": {type_}"
    if each.default is each.empty:
        return f"{stars}{each.name}{kind}"
    is_plain = isinstance(each.default, bool | int | float | str | None | tuple) and not isinstance(
        each.default, enum.Enum
    )
    default = repr(each.default).replace("'", '"') if is_plain else "..."
    return f"{stars}{each.name}{kind} = {default}"
