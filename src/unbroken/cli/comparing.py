"""`compare`: runs side by side, as text, Markdown, data, or a page for a browser."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from unbroken.cli.named_runs import LISTED, Tagged, runs_below, the_one
from unbroken.cli.side_by_side import as_text
from unbroken.cli.tables import as_json_text
from unbroken.clock import SystemClock, shown_time
from unbroken.config import nearest
from unbroken.errors import UsageError
from unbroken.jsonlines import finite
from unbroken.logbook.entries import usual_language
from unbroken.quantities import size_text
from unbroken.report.compare import Comparison, compare
from unbroken.report.foreign_curves import has_foreign_curves
from unbroken.report.run_facts import RunFacts, facts_of_runs
from unbroken.report.wording import LANGUAGES, headline
from unbroken.run.finding import find_runs, holds_run
from unbroken.storage import Disk, WritableFile, durable_write, open_ordinary
from unbroken.text import shown


def compare_command(
    words: Sequence[str], *, metric: str, as_json: bool, as_markdown: bool, page: Path | None, language: str
) -> None:
    """Find the runs, read them, and show them in one of the four ways."""
    if language not in ("", *LANGUAGES):
        raise UsageError("--lang", "this language is not spoken here", expected=" or ".join(LANGUAGES), found=language)
    if as_json + as_markdown + (page is not None) > 1:
        raise UsageError("unbroken compare", "--json, --markdown and --html exclude one another", do="Choose one.")
    folders = run_folders_of(words)
    if page is not None:
        _require_ours(page)
    facts = facts_of_runs(folders, processes=os.cpu_count() or 1)
    found = compare(facts, metric=metric)
    if as_json:
        print(as_json_text(finite(found.as_data())))
    elif as_markdown:
        from unbroken.report.markdown import as_markdown as markdown

        print(markdown(found, language or "en"), end="")
    elif page is not None:
        _write_page(found, facts, page, language=language or usual_language(), command=_command(words, metric, page))
    else:
        print(as_text(found, language or "en"))


def run_folders_of(words: Sequence[str]) -> list[Path]:
    """The folders of at least two different runs; each word is a folder, or a tag of a run below the current folder."""
    if len(words) < 2:
        found = words[0] if words else "none"
        raise UsageError(
            "unbroken compare",
            "there is nothing to compare with",
            expected="two runs or more",
            found=found,
            do=f"Name another one too; one alone: unbroken show {found}" if words else "",
        )
    below: list[Tagged] = []
    folders = [_folder(word, below) for word in words]
    for place, folder in enumerate(folders):
        same = next((earlier for earlier in range(place) if folder.resolve() == folders[earlier].resolve()), None)
        if same is not None:
            raise UsageError(words[place], f"this run is named twice ({words[same]} is the same folder)")
    return folders


def _folder(word: str, below: list[Tagged]) -> Path:
    path = Path(word)
    if _is_run(path):
        return path
    below += below or runs_below(Path())
    named = the_one(word, below)
    if named is None:
        raise _not_found(path, word, below)
    return named


def _not_found(path: Path, word: str, below: Sequence[Tagged]) -> UsageError:
    inside = [str(folder) for folder in find_runs(path)][:LISTED] if _is_folder(path) else []
    if inside:
        return UsageError(
            shown(word), "this folder holds no run itself", found=", ".join(inside), do="Name those to compare."
        )
    known = list(dict.fromkeys(name for name, _ in below))
    near = nearest(word, known)
    return UsageError(
        shown(word),
        "there is no such run",
        expected="a run's folder, or the tag of a run below the current folder",
        found=", ".join(shown(name, 60) for name in known[:LISTED]) or "no run below the current folder",
        do=f"Did you mean {shown(near)}?" if near else "`unbroken ls` lists what is there.",
    )


def _is_run(path: Path) -> bool:
    return _is_folder(path) and (holds_run(str(path)) is None or has_foreign_curves(path))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that no file can have
        return False


# -- the page --------------------------------------------------------------------------------------------------------


def _require_ours(page: Path) -> None:
    """Nothing is overwritten but a page that was made here, and nothing is read before that is clear."""
    from unbroken.report.page import MARK

    if _is_folder(page):
        raise UsageError(page, "this is a folder", expected="the name of an .html file")
    if not page.parent.is_dir():
        raise UsageError(page, "its folder does not exist", expected=f"a folder {page.parent}")
    try:
        with open_ordinary(page) as file:
            head = file.read(len(MARK) + 40)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise UsageError(page, f"the file that is there cannot be read ({error})") from error
    if MARK.encode() not in head:
        raise UsageError(page, "this file is no comparison of ours and is not overwritten", do="Choose another name.")


def _write_page(found: Comparison, facts: Sequence[RunFacts], page: Path, *, language: str, command: str) -> None:
    from unbroken.report.page import document

    moment = shown_time(SystemClock().now())
    data = document(found, facts, language=language, command=command, moment=moment)
    try:
        durable_write(Disk(), page, lambda file: _fill(file, data))
    except OSError as error:
        raise UsageError(page, f"the page cannot be written ({error.strerror or error})") from error
    print(shown(headline(found, "en"), 400))
    print(f"wrote {page} ({size_text(len(data))}, opens in any browser, also without a network)")


def _fill(file: WritableFile, data: bytes) -> None:
    file.write(data)


def _command(words: Sequence[str], metric: str, page: Path) -> str:
    return shlex.join(["unbroken", "compare", *words, *(["--metric", metric] if metric else []), "--html", str(page)])
