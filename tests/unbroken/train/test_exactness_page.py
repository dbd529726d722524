"""What docs/exactness.md says: its example is run, its quotes are what is said."""

import re
from pathlib import Path

import pytest
import torch

from unbroken.train.device import EXACTNESS, current_conditions, exactness_lines, take_over

DOCS = Path(__file__).parents[3] / "docs"
ENGLISH, CHINESE = (DOCS / name for name in ("exactness.md", "exactness-zh.md"))
PAGES = pytest.mark.parametrize("page", [ENGLISH, CHINESE], ids=lambda page: page.stem)


@PAGES
def test_a_generator_that_is_held_is_seeded_and_one_made_for_each_item_is_not(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    script = re.search(r"^```python\n(.*?)```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)[1]
    exec(compile(script, str(page), "exec"), {"__name__": "example"})
    printed = re.findall(r"^\[\[(.+), (.+)\], \[(.+), (.+)\]\]$", capsys.readouterr().out, re.MULTILINE)
    (one, *_), (two, *_) = printed
    assert len(printed) == 2 and one == two
    assert printed[0][::2] == printed[1][::2] and not {*printed[0][1::2]} & {*printed[1][1::2]}


@PAGES
def test_the_words_that_are_quoted_are_those_that_are_said(page):
    text = page.read_text("utf-8")
    (said,) = exactness_lines([torch.device("cuda", 0)], deterministic=False, do="--deterministic")
    assert re.search(r"`(not bit for bit on .*?)`", text)[1] in said
    assert re.search(r"`(results may differ .*?)`", text)[1] in " ".join(take_over({"torch": "another"}))


@pytest.mark.parametrize("key", EXACTNESS)
def test_each_condition_that_changes_bits_is_said_where_it_is_another_and_only_that_one(key):
    now = current_conditions()
    threads = torch.get_num_threads()
    try:
        said = take_over({**now, key: now[key] + 1 if key == "threads" else "another"})
        assert torch.get_num_threads() == threads + (key == "threads")
    finally:
        torch.set_num_threads(threads)
    assert [line.split(":")[0] for line in said] == ["compute threads" if key == "threads" else key]
    assert take_over(now) == []
