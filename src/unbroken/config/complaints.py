"""What is wrong with a config, in the user's words: place, key, expected, found, what was probably meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, NoReturn, get_args, get_origin

from unbroken.config.config_file import ConfigFile
from unbroken.config.literals import literal
from unbroken.config.nearest import suggestion
from unbroken.config.schema import keys_called, sections_in
from unbroken.config.section import Misfit, Section
from unbroken.errors import ConfigError

NUMBERS = ("a whole number", "a number")
# What pydantic says, in words that are no types.
IN_WORDS = {
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "True or False",
    "a valid string": "text in quotes",
}
TOO_FEW = "has too few values"
MOST_MEANT = 2  # keys of one name
SHOWN = 8  # more than this at once is not read
MOST_COMPLAINTS = 1000  # more than this at once is another kind of file, and each takes a search for the name meant


@dataclass(frozen=True, kw_only=True)
class Complaint:
    """One thing that is wrong with one key."""

    key: str
    what: str
    expected: str = ""
    found: str = ""
    do: str = ""

    @classmethod
    def of_misfit(cls, key: str, misfit: Misfit) -> Complaint:
        """Take over a misfit under its full key."""
        return cls(key=key, what=misfit.what, expected=str(misfit.expected), found=str(misfit.found), do=misfit.do)


def raise_together(complaints: Sequence[Complaint], file: ConfigFile) -> NoReturn:
    """Raise one error that lists the complaints in the order of the files and lines they come from."""
    ordered = sorted(complaints, key=lambda complaint: _reading_order(complaint, file))
    errors = [_error(complaint, file) for complaint in ordered]
    if len(errors) == 1:
        raise errors[0]
    listed = "".join(f"\n  {error}" for error in errors[:SHOWN])
    more = f"\n  ... and {len(errors) - SHOWN} more" if len(errors) > SHOWN else ""
    raise ConfigError(file.path, f"{len(errors)} settings are wrong", do=f"{listed}{more}")


def complaints_of(errors: Iterable[Any], schema: type[Section], tree: Mapping[str, Any]) -> list[Complaint]:
    """Translate pydantic's findings; union members that fail at the same key become one complaint."""
    by_key: dict[str, list[Complaint]] = {}
    for error in islice(errors, MOST_COMPLAINTS):
        complaint = _translate(error, schema, tree)
        found = by_key.setdefault(complaint.key, [])
        if found and found[-1].what == complaint.what == TOO_FEW:  # each value that is not there is one of pydantic's
            found.pop()
        found.append(complaint)
    return [_one_of(found) for found in by_key.values()]


def _one_of(found: Sequence[Complaint]) -> Complaint:
    expected = " or ".join(dict.fromkeys(complaint.expected for complaint in found if complaint.expected))
    first = found[0]
    return Complaint(key=first.key, what=first.what, expected=expected, found=first.found, do=first.do)


def _error(complaint: Complaint, file: ConfigFile) -> ConfigError:
    return ConfigError(
        file.place_of(complaint.key),
        f"`{complaint.key}` {complaint.what}" if complaint.key else complaint.what,
        expected=complaint.expected,
        found=complaint.found,
        do=complaint.do,
    )


def _reading_order(complaint: Complaint, file: ConfigFile) -> tuple[int, int]:
    place = file.place_of(complaint.key)
    known = place.file in file.sources
    return (file.sources.index(place.file) if known else len(file.sources)), place.line


def _translate(error: Any, schema: type[Section], tree: Mapping[str, Any]) -> Complaint:
    loc, context = error["loc"], error.get("ctx", {})
    key = dotted(loc, tree, missing=error["type"] in ("missing", "extra_forbidden"))
    match error["type"]:
        case "extra_forbidden":
            sections = sections_at(loc[:-1], schema)
            names = [name for section in sections for name in section.model_fields]
            told = next((section.advice[loc[-1]] for section in sections if loc[-1] in section.advice), "")
            below = keys_called(str(loc[-1]), schema)
            meant = f"Did you mean {' or '.join(f'`{each}`' for each in below[:MOST_MEANT])}?" if below else ""
            do = told or meant or suggestion(str(loc[-1]), names)
            return Complaint(key=key, what="is not a known key", do=do)
        case "missing" if loc and isinstance(loc[-1], int):
            values = f"{loc[-1] + 1} values"
            return Complaint(
                key=dotted(loc[:-1], tree, missing=False), what=TOO_FEW, expected=values, found=_short(error["input"])
            )
        case "missing":
            return Complaint(key=key, what="is missing", do="Add it.")
        case "union_tag_invalid":
            tags = [tag.strip(" '") for tag in context["expected_tags"].split(",")]
            found = context["tag"]
            return Complaint(
                key=f"{key}.{_tag_of(context)}", what="names nothing that is known",
                expected=_alternatives(tags), found=repr(found), do=suggestion(found, tags),
            )  # fmt: skip
        case "union_tag_not_found":
            return Complaint(key=key, what=f"has no `{_tag_of(context)}`", found=_short(error["input"]))
        case _:
            expected, found = _expectation(error), error["input"]
            quoted = isinstance(found, str) and found.strip() and expected in (*NUMBERS, "True or False")
            do = "Write it without quotes." if quoted and literal(found) is not found else ""
            return Complaint(key=key, what="has a wrong value", expected=expected, found=_short(found), do=do)


def _tag_of(context: Any) -> str:
    """Return the field that tells the sections of a union apart: `type`, or OpenPCDet's `NAME`."""
    return str(context["discriminator"]).strip("'")


def _alternatives(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def _expectation(error: Any) -> str:
    if error["type"] in ("too_long", "too_short"):
        context = error["ctx"]
        bound = "at most" if "max_length" in context else "at least"
        length = context.get("max_length", context.get("min_length"))
        return f"{bound} {length} value{'s' * (length != 1)}"
    message = str(error["msg"]).removeprefix("Value error, ")
    found = message.removeprefix("Input should be ").removeprefix("Input should ")
    return IN_WORDS.get(found, found)


def _short(value: Any, *, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def dotted(loc: Sequence[str | int], tree: Any, *, missing: bool) -> str:
    """Return pydantic's path as a key: the names of union members in it are not part of the config."""
    parts: list[str] = []
    for place, part in enumerate(loc):
        inside = isinstance(tree, Mapping) and part in tree
        listed = isinstance(tree, list | tuple) and isinstance(part, int) and part < len(tree)
        if inside or listed:
            tree = tree[part]
            parts.append(str(part))
        elif missing and place == len(loc) - 1:
            parts.append(str(part))
    return ".".join(parts)


def sections_at(loc: Sequence[str | int], schema: type[Section]) -> tuple[type[Section], ...]:
    """Return the sections that can stand at pydantic's path; a name that is no field picks among them."""
    here: tuple[type[Section], ...] = (schema,)
    for part in loc:
        fields = [section.model_fields[part] for section in here if part in section.model_fields]
        if fields:
            here = tuple(section for info in fields for section in sections_in(info.annotation))
        elif isinstance(part, str):
            here = tuple(section for section in here if _answers_to(section, part)) or here
    return here


def _answers_to(section: type[Section], tag: str) -> bool:
    literals = [info.annotation for info in section.model_fields.values() if get_origin(info.annotation) is Literal]
    return section.__name__ == tag or any(tag in get_args(literal) for literal in literals)
