"""The documentation says what is there: commands, options, links, paths, code, and the generated pages."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from docs.build import error_classes, pages

from mapsage.tools import predict, test
from unbroken.cli.tree import COMMANDS, parser_of
from unbroken.launch import find_recipe
from unbroken.launch.job import installed

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(page for name in ("docs", "benchmarks", "examples") for page in (ROOT / name).rglob("*.md"))]
)
CHINESE = [page for page in PAGES if page.stem.endswith("-zh") and page.stem != "api-zh"]  # a part of api.md: test_api
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(r"(?<![\w./-])(?:src|apps|tests|docs|examples|benchmarks)/[\w./-]*\w")
PROMPT = re.compile(r"^\s*(?:[\w/.~-]*[$!]\s*)?(?=unbroken \S|python scripts/\w+\.py )")
FRONT_DOOR = "python scripts/train.py "  # of the recipe mapsage
TOOLS = {"python scripts/test.py ": test.parser, "python scripts/predict.py ": predict.parser}


def name_of(value: object) -> str:
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else str(value)


def text_of(page: Path) -> str:
    return page.read_text("utf-8")


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """The language and the text of every code block."""
    for found in BLOCK.finditer(text_of(page)):
        yield found[2], found[3]


def commands(page: Path) -> Iterator[str]:
    """Every command line of ours in the code blocks of a page, without prompt, comment or redirection.

    In a manifest, and in the text, a command may stand as a list of its words.
    """
    for words in re.findall(r'\["unbroken", [^\]]*\]', text_of(page)):
        yield shlex.join(json.loads(words))
    for _, text in blocks(page):
        for line in text.replace("\\\n", " ").splitlines():
            prompt = PROMPT.match(line)
            if prompt:
                yield re.split(r"\s+(?:#|\||&&|>|2>)|;|\s{2,}", line[prompt.end() :])[0]


def options_of(recipe: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", find_recipe(recipe).usage()))


def problems(line: str) -> list[str]:
    """What is wrong with one command line."""
    words = shlex.split(line.partition(" -- ")[0])  # behind it stands another program's own
    given = [word.split("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)]
    if tool := next((parser for door, parser in TOOLS.items() if line.startswith(door)), None):
        return [f"there is no option {word}: {line}" for word in given if word not in tool()._option_string_actions]
    words = ["train", "mapsage", *words[2:]] if line.startswith(FRONT_DOOR) else words[1:]
    if words and words[0] in ("--help", "-h", "--version"):
        return []
    if not words or words[0] not in COMMANDS:
        return [f"there is no such command: {line}"]
    known = set(parser_of(words[0]).spellings())
    if words[0] in ("train", "why", "check") and len(words) > 1:
        if words[1] in installed():
            known |= options_of(words[1])
        elif ":" in words[1] or words[1].isupper():
            return []
        else:
            return [f"there is no such recipe: {line}"]
    return [f"there is no option {word}: {line}" for word in given if word not in known]


def test_the_generated_pages_are_up_to_date() -> None:
    for name, text in pages().items():
        assert text_of(ROOT / "docs" / name) == text, "run `python -m docs.build`"


def test_the_command_line_s_page_has_every_script_of_the_applications_with_its_options() -> None:
    scripts = [*ROOT.glob("apps/*/*.py"), *ROOT.glob("apps/*/scripts/*.py")]
    page = text_of(ROOT / "docs" / "cli.md")
    headings = {heading.strip("# `") for heading in re.findall(r"^## `apps/.*", page, re.MULTILINE)}
    assert headings == {name_of(script) for script in scripts if script.name != "train.py"} and len(headings) == 4
    for parser in TOOLS.values():
        options = [action for action in parser()._actions if action.help != "==SUPPRESS=="]
        assert [word for action in options for word in action.option_strings if word not in page] == []


def test_every_error_has_an_entry_with_a_real_text() -> None:
    page = text_of(ROOT / "docs" / "errors.md")
    for kind in error_classes()[1:]:
        assert re.search(rf"^## {kind.__name__} \({kind.exit_code}\)\n\n.+\n\n```\n.+", page, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_shown_exists_with_its_options(page: Path) -> None:
    assert [problem for line in commands(page) for problem in problems(line)] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    prose = BLOCK.sub("", text_of(page))
    links = [link.partition("#")[0] for link in LINK.findall(prose) if not re.match(r"\w+:", link)]
    assert [link for link in links if link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_of_ours_that_is_named_exists(page: Path) -> None:
    named = set(PATH.findall(re.sub(r"\w+://\S+", "", text_of(page))))
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


def test_every_name_that_design_md_says_to_read_stands_in_its_file() -> None:
    table = text_of(ROOT / "DESIGN.md").partition("## Where to look")[2].partition("\n## ")[0]
    pointed = re.findall(r"`(\w+)` in `([\w/.]+)`", table)
    assert len(pointed) > 15
    for name, file in pointed:
        assert re.search(rf"^ *(?:def|class) {name}\b|^{name}\b.* = ", text_of(ROOT / file), re.MULTILINE), name


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_python_block_compiles(page: Path) -> None:
    for language, text in blocks(page):
        if language == "python":
            compile(text, str(page), "exec")


@pytest.mark.parametrize("chinese", CHINESE, ids=name_of)
def test_both_languages_have_the_same_headings_rows_links_and_code(chinese: Path) -> None:
    def shape(page: Path) -> list[object]:
        code = [(language, re.sub(r"\s+#.*", "", block)) for language, block in blocks(page)]
        prose = BLOCK.sub("", text_of(page))
        sections = re.split(r"^(##+) ", prose, flags=re.MULTILINE)
        rows = [len(re.findall(r"^(?:\||- )", section, re.MULTILINE)) for section in sections]
        links = [LINK.findall(section.replace("-zh.md", ".md")) for section in sections]
        return [sections[1::2], rows, links, code]

    english = chinese.with_name(chinese.name.replace("-zh", ""))
    assert shape(english) == shape(chinese)
    assert f"]({chinese.name})" in text_of(english) and f"]({english.name})" in text_of(chinese)


def test_the_readme_types_the_story_of_one_run_in_one_folder() -> None:
    story = (ROOT / "README.md").read_text().partition("## One session")[2].partition("## The files of a run")[0]
    typed = re.findall(r"^(\S*)\$ (.*)$", story, flags=re.MULTILINE)
    assert len(typed) > 5 and {folder for folder, _ in typed} == {""}
    named = [word for _, command in typed for word in command.split() if word.endswith(".py")]
    assert len(named) > 5 and all((ROOT / word).is_file() for word in named)


def test_these_tests_find_what_they_look_for(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    with page.open("w", encoding="utf-8") as file:
        file.write(
            "```bash\n$ unbroken lss\nunbroken ls --jsonn runs\n!python scripts/train.py c.py --fresj\n"
            "python scripts/predict.py c.py best tiles --outt out\n```\n"
            'command: ["unbroken", "stop", "RUN", "--waiting"]\n'
        )
    found = [problem for line in commands(page) for problem in problems(line)]
    assert [problem.split(":")[0] for problem in found] == [
        "there is no option --waiting",
        "there is no such command",
        "there is no option --jsonn",
        "there is no option --fresj",
        "there is no option --outt",
    ]
