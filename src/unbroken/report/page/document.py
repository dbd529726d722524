"""The whole page: head with its policy, style, elements, data, scripts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from unbroken.errors import NotInstalled
from unbroken.report.compare import RunComparison
from unbroken.report.messages import headline
from unbroken.report.page import elements
from unbroken.report.page.figure import plots_of, reach_of
from unbroken.report.page.words import as_script, escaped, word
from unbroken.report.run_facts import RunFacts

MARK = "<!-- a comparison by unbroken -->"  # only files that begin with it are ever replaced
PLOTLY = "package_data/plotly.min.js"


def document(found: RunComparison, facts: Sequence[RunFacts], *, language: str, command: str, moment: str) -> bytes:
    """The page as UTF-8."""
    drawn = list(plots_of(found, facts, language))
    plotly, own = _plotly(), _resource("page.js")
    body = "".join(
        (
            elements.header(found, language),
            elements.cards(found, facts, language),
            elements.notes(found, language),
            elements.plots(drawn, language),
            elements.settings(found, language),
            elements.results(found, language),
            elements.predictions(found, facts, language),
            elements.footer(command, moment, language),
        )
    )
    data = as_script(
        {"plots": [{"traces": plot.traces} for plot in drawn], "step": word("step", language), "reach": reach_of(facts)}
    )
    title = f"{word('title', language)}: {headline(found, language)}"
    text = (
        f'<!doctype html>\n{MARK}\n<html lang="{"zh-CN" if language == "zh" else "en"}"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(plotly, own)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f"<title>{escaped(title, 200)}</title><style>{_resource('page.css')}</style></head>"
        f'<body><main>{body}</main><script type="application/json" id="data">{data}</script>'
        f"<script>{plotly}</script><script>{own}</script></body></html>\n"
    )
    return text.encode("utf-8", "replace")


def _policy(*scripts: str) -> str:
    """Nothing is loaded from anywhere; these scripts run, and no other."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _resource(name: str) -> str:
    return (files("unbroken.report.page") / name).read_text("utf-8").strip()


def _plotly() -> str:
    """The library as its Python package brings it; the package itself is not imported."""
    spec = find_spec("plotly")
    for folder in spec.submodule_search_locations or () if spec is not None else ():
        path = Path(folder) / PLOTLY
        if path.is_file():
            return path.read_text("utf-8").strip().replace("</script", "<\\/script")
    raise NotInstalled("plotly", "the plotting library is not installed", do="Type: pip install 'unbroken[report]'")
