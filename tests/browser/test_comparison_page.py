"""The page of a comparison in a real Chromium: what it shows, what it never asks for, and what it never runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import Browser, browser
from tests.browser.runs import killed_and_resumed, out_for_harm
from unbroken.cli import main

TRACES = """return [...document.querySelectorAll('[data-plot]')].filter(plot => plot.data).map(plot => plot.data.map(
  trace => ({run: trace.run, kind: trace.kind, visible: trace.visible !== false, points: trace.x.length,
             gaps: trace.y.filter(value => value === null).length})))"""
DRAWN = "return document.querySelectorAll('[data-plot] .main-svg').length > 0"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return killed_and_resumed(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium") / "profile") as found:
        yield found


def page_of(target: Path, *words: object) -> Path:
    assert main(["compare", *map(str, words), "--html", str(target)]) == 0
    return target


def opened(chromium: Browser, page: Path, *, width: int = 1400, theme: str = "light") -> Browser:
    chromium.theme(theme)
    chromium.resize(width, phone=width < 600)
    chromium.run("location = 'about:blank'")
    chromium.console(), chromium.requests()  # of the page before
    chromium.open(page)
    chromium.until(DRAWN)
    return chromium


@pytest.fixture(scope="module")
def page(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return page_of(tmp_path_factory.mktemp("page") / "out.html", *runs, "--lang", "en")


def text(chromium: Browser, selector: str) -> str:
    return str(chromium.run("return document.querySelector(arguments[0]).innerText", selector))


def kinds(chromium: Browser) -> list[set[tuple[int, str]]]:
    return [{(trace["run"], trace["kind"]) for trace in plot} for plot in chromium.run(TRACES)]


def test_the_page_says_which_run_is_best_and_draws_its_curves(chromium: Browser, page: Path) -> None:
    opened(chromium, page)
    assert " is best: mIoU " in text(chromium, "h1") or "level" in text(chromium, "h1")
    assert chromium.run("return document.querySelectorAll('.card').length") == 2
    metric, loss, rate = kinds(chromium)[:3]
    assert {(0, "kept"), (1, "kept"), (0, "best"), (1, "best")} <= metric
    assert {(0, "session"), (0, "rewind"), (0, "discarded"), (1, "session"), (1, "discarded")} <= loss & rate
    assert "optim_wrapper.optimizer.lr" in text(chromium, "table")


def test_sessions_and_what_was_done_again_are_on_the_cards(chromium: Browser, page: Path) -> None:
    opened(chromium, page)
    count = "return [...document.querySelectorAll('.card')].map(card => card.querySelectorAll(arguments[0]).length)"
    assert chromium.run(count, ".strip .kept") == [3, 2]
    assert all(chromium.run(count, ".strip .lost"))
    assert "steps done again" in text(chromium, ".card")


def test_nothing_is_asked_for_and_nothing_is_complained_of(chromium: Browser, page: Path) -> None:
    opened(chromium, page)
    chromium.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    chromium.until("return [...document.querySelectorAll('[data-plot]')].every(plot => plot.data)")
    assert chromium.console() == []
    others = [url for url in chromium.requests() if not url.startswith(("data:image/png;", "about:blank"))]
    assert others == [page.resolve().as_uri()]


def test_the_predictions_are_embedded(chromium: Browser, page: Path) -> None:
    opened(chromium, page)
    size = "return [...document.querySelectorAll('.pictures img')].map(img => img.naturalWidth)"
    chromium.until(f"{size}.every(width => width > 0)")
    assert len(chromium.run(size)) >= 2


def test_a_click_on_a_run_hides_it_in_all_plots_and_another_one_shows_it(chromium: Browser, page: Path) -> None:
    opened(chromium, page)
    for shown in (False, True):
        chromium.run("document.querySelector('[data-run=\"1\"]').click()")
        for plot in chromium.run(TRACES):
            assert {trace["run"] for trace in plot if trace["visible"]} == ({0, 1} if shown else {0})
        pressed = "return document.querySelector('[data-run=\"1\"]').getAttribute('aria-pressed')"
        assert chromium.run(pressed) == str(shown).lower()


@pytest.mark.parametrize("theme, dark", [("light", False), ("dark", True)])
def test_light_and_dark_follow_the_system_and_the_button(
    chromium: Browser, page: Path, tmp_path: Path, theme: str, *, dark: bool
) -> None:
    opened(chromium, page, theme=theme)
    ground = "return getComputedStyle(document.body).backgroundColor"
    grounds = {False: "rgb(255, 255, 255)", True: "rgb(20, 23, 26)"}
    assert chromium.run(ground) == grounds[dark]
    chromium.screenshot(tmp_path / f"{theme}.png")
    assert (tmp_path / f"{theme}.png").stat().st_size > 50_000
    chromium.run("document.getElementById('theme').click()")
    assert chromium.run(ground) == grounds[not dark]


@pytest.mark.parametrize("width", [360, 768, 1400])
def test_no_width_needs_scrolling_sideways(chromium: Browser, page: Path, tmp_path: Path, width: int) -> None:
    opened(chromium, page, width=width)
    chromium.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    chromium.screenshot(tmp_path / f"{width}.png")
    assert chromium.run("return [innerWidth, document.documentElement.scrollWidth]") == [width, width]
    wide = "return [...document.querySelectorAll('.plot svg')].map(s => s.getBoundingClientRect().right)"
    assert max(chromium.run(wide)) <= width


def test_the_page_speaks_chinese(chromium: Browser, runs: list[Path], tmp_path: Path) -> None:
    opened(chromium, page_of(tmp_path / "zh.html", *runs, "--lang", "zh"))
    assert "训练对比" in text(chromium, "header")
    assert chromium.run("return document.documentElement.lang") == "zh-CN"


@pytest.fixture(scope="module")
def hostile(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    return page_of(folder / "out.html", runs[1], out_for_harm(runs[0], folder), "--lang", "en")


@pytest.mark.parametrize("width", [360, 1400])
def test_hostile_names_and_values_are_shown_and_do_nothing(chromium: Browser, hostile: Path, width: int) -> None:
    opened(chromium, hostile, width=width)
    chromium.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    chromium.until("return [...document.querySelectorAll('[data-plot]')].every(plot => plot.data)")
    counts: dict[str, Any] = chromium.run(
        """const count = selector => document.querySelectorAll(selector).length;
        return {harmed: window.harmed ?? null, scripts: count('script'), links: count('main a'),
                strange: count('main img:not([src^="data:image/png;base64,"]), [onerror], [onload], iframe, object'),
                wide: document.documentElement.scrollWidth}"""
    )
    assert counts == {"harmed": None, "scripts": 3, "links": 0, "strange": 0, "wide": width}
    assert "<script>window.harmed = 1</script>" in text(chromium, "main")
    assert "\x1b" not in hostile.read_text("utf-8")
    assert chromium.console() == []


def test_values_that_are_not_finite_are_gaps_with_a_mark(chromium: Browser, hostile: Path) -> None:
    opened(chromium, hostile)
    loss = chromium.run(TRACES)[1]
    gaps = {(trace["run"], trace["kind"]): trace["gaps"] for trace in loss}
    assert gaps[1, "kept"] == 3
    assert (1, "nan") in gaps
    assert (0, "nan") not in gaps
    assert "not finite" in text(chromium, ".notes")


def test_a_script_that_the_page_was_not_made_with_does_not_run(chromium: Browser, page: Path) -> None:
    opened(chromium, page)
    chromium.run(
        """const script = document.createElement('script');
        script.textContent = 'window.harmed = 4';
        document.body.append(script);
        document.body.insertAdjacentHTML('beforeend', '<img src="x" onerror="window.harmed = 5">');
        fetch('http://127.0.0.1:9/').catch(() => {});"""
    )
    assert chromium.until("return document.querySelector('img[src=x]').complete") is True
    assert chromium.run("return window.harmed ?? null") is None
    refused = chromium.console()
    assert len(refused) >= 3
    assert all("Content Security Policy" in line for line in refused)
