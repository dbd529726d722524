"""The generated pages of the documentation: `python -m docs.build` writes `api.md`, `cli.md` and `errors.md`, and the
tables of `saving-at-scale.md` (`scale.py`).

The public names come from their docstrings (`api.py`), the commands from the tree of commands, the options of a recipe
from its own help text, the errors from `errors.py`. The examples of errors are texts that the real code gives for facts
made up here; nothing is run or touched.
"""

from __future__ import annotations

import errno
import os
import signal
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from docs.api import api_page, docstring_of
from docs.scale import with_tables

from unbroken.cli.tree import COMMANDS, parser_of
from unbroken.config import Effect, Effects, set_values
from unbroken.errors import (
    INTERRUPTED_TWICE,
    NOT_EXACT,
    STOPPED,
    ForeignFile,
    NotInstalled,
    Refused,
    UnbrokenError,
    UnreadableSample,
)
from unbroken.launch import Facts, Job, Refuse, Start, decide, find_recipe, load_attribute
from unbroken.launch.explain import refusal
from unbroken.launch.job import Limit, installed
from unbroken.launch.options import require_time_left
from unbroken.run import Candidate, RunRecord, Survey
from unbroken.storage.lock import Holder

GENERATED = "<!-- Written by `python -m docs.build`. Change the code, not this page. -->\n"
HELP_COLUMNS = 100
WHAT_TO_DO = {
    0: "Nothing.",
    1: "Report it, with the trace that was printed. What was saved is whole.",
    2: "Correct the command or the config; the message names the place and the nearest known name.",
    10: "Choose one of the ways out that the message lists.",
    11: "Wait, or stop the other process with the command that the message shows.",
    12: "Copy the file again, make room, or choose one of the ways out. Damaged files are kept.",
    13: "Undo the change, or give the changed experiment a name of its own.",
    14: "Install the newer version of unbroken.",
    NOT_EXACT: "Mend what it names, and prove again: docs/prove.md.",
    STOPPED: "Run the same command again: it goes on at the next step.",
    INTERRUPTED_TWICE: "Run the same command again: it goes on at the last save.",
}


def pages() -> dict[str, str]:
    """Every generated page by its file name."""
    with _plain_terminal():
        whole = {"api.md": api_page(GENERATED), "cli.md": cli_page(), "errors.md": errors_page()}
    at_scale = {name: Path(__file__).with_name(name) for name in ("saving-at-scale.md", "saving-at-scale-zh.md")}
    return whole | {
        name: with_tables(page.read_text("utf-8"), chinese="-zh" in name) for name, page in at_scale.items()
    }


def cli_page() -> str:
    """All commands with their arguments and options, then those of each installed recipe and of its other scripts."""
    parts = [
        "# Command line",
        GENERATED,
        "After `pip install`, the command is `unbroken`. `python -m unbroken` is the same.",
    ]
    summary = [f"| [`{name}`](#unbroken-{name}) | {command.summary} |" for name, command in COMMANDS.items()]
    parts.append("\n".join(["| command | does |", "|---|---|", *summary]))
    parts.append("Exit codes and error messages: [errors.md](errors.md).")
    for name in COMMANDS:
        parts += [f"## unbroken {name}", _help_of(parser_of(name).format_help)]
    for name in installed():
        parts += _recipe(name)
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def errors_page() -> str:
    """The table of exit codes, then every error with a real text."""
    classes = error_classes()
    by_code: dict[int, list[type[UnbrokenError]]] = {}
    for kind in classes:
        by_code.setdefault(kind.exit_code, []).append(kind)
    rows = {0: ("done", "")}
    rows |= {
        code: (kinds[0].meaning, ", ".join(f"`{kind.__name__}`" for kind in kinds)) for code, kinds in by_code.items()
    }
    rows[NOT_EXACT] = ("`unbroken prove`: a killed and resumed training is not the same in every bit", "")
    rows[STOPPED] = (
        "stopped and resumable (SIGTERM, SIGINT, SIGUSR1, SIGHUP, `unbroken stop`, the end of the session)",
        "",
    )
    rows[INTERRUPTED_TWICE] = ("interrupted twice: ended at once, without a save", "")
    table = [
        f"| {code} | {meaning} | {names} | {WHAT_TO_DO[code]} |" for code, (meaning, names) in sorted(rows.items())
    ]
    parts = [
        "# Errors and exit codes",
        GENERATED,
        "A message says where, what, what was expected, what was found and what to do. "
        "With `--json` the same facts are one JSON object. A refusal changes nothing on disk.",
        "\n".join(["| code | meaning | error | what to do |", "|---|---|---|---|", *table]),
        "A script around a training needs two of these codes: 0 is done, 75 means run the same command again.",
        "Every error below is an `UnbrokenError`, with `where`, `what`, `expected`, `found`, `do` and `exit_code`.",
    ]
    examples = _examples()
    for kind in classes[1:]:
        parts += [f"## {kind.__name__} ({kind.exit_code})", docstring_of(kind).summary, f"```\n{examples[kind]}\n```"]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def error_classes() -> list[type[UnbrokenError]]:
    """The whole family, by exit code."""
    found, waiting = [], [UnbrokenError]
    while waiting:
        found.append(waiting.pop(0))
        waiting += found[-1].__subclasses__()
    return sorted(found, key=lambda kind: kind.exit_code)


# -- commands --------------------------------------------------------------------------------------------------------


def _recipe(name: str) -> Iterator[str]:
    recipe = find_recipe(name)
    yield f"## Options of the recipe `{name}`"
    yield f"After `unbroken train {name}` and `unbroken why {name}`:"
    yield _help_of(recipe.usage)
    for script, usage in recipe.tools.items():
        yield f"## `{script}`"
        yield _help_of(load_attribute(usage))


def _help_of(written: Callable[[], str]) -> str:
    """What a parser of options writes about itself, as a block."""
    with _plain_terminal():
        text = written()
    usage, _, rest = text.strip().partition("\n\n")
    lines = textwrap.wrap(" ".join(usage.split()), HELP_COLUMNS, subsequent_indent=" " * 8, break_on_hyphens=False)
    return "```\n" + "\n".join(lines) + f"\n\n{rest}\n```"


@contextmanager
def _plain_terminal() -> Iterator[None]:
    """Let texts have the same width and the same clock everywhere, and no colours."""
    wanted = {"COLUMNS": str(HELP_COLUMNS), "NO_COLOR": "1", "TZ": "UTC"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ |= wanted
    _take_zone()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        _take_zone()


def _take_zone() -> None:
    if hasattr(time, "tzset"):  # not on Windows
        time.tzset()


# -- examples --------------------------------------------------------------------------------------------------------

FOLDER = Path("work_dirs/baseline")
CONFIG: Mapping[str, Any] = {"model": {"width": 64}, "lr": 0.01, "max_iters": 40000}
EFFECTS = Effects(fields={"model": Effects(own=Effect.SHAPE), "lr": Effects(own=Effect.SCHEDULE)}, own=Effect.FREE)
RECORD = RunRecord(id="1f0e4c2a9b7d5836", recipe="my_app", tag="baseline", created="2026-01-01T08:00:00+00:00", seed=0)
GOOD = Candidate(
    path=FOLDER / "iter_8000.pth",
    step=8000,
    kind="checkpoint",
    state="good",
    reason="verified by whole-file digest",
    run=RECORD.id,
    format_name="unbroken checkpoint",
    inside={"config": CONFIG, "lr": 0.008},
)
CUT_OFF = replace(GOOD, state="damaged", reason="the file is cut off: 8,192 of 24,490 bytes are there")
NEWER = replace(GOOD, state="newer", reason="format 4, this version knows 3")
WEIGHTS = replace(GOOD, path=FOLDER / "best_mIoU_iter_8000.pth", kind="weights", format_name="unbroken weights")
OVER = Limit(left_s=30.0, reserve_s=60.0, source="Slurm, SLURM_JOB_END_TIME")
HOLDER = Holder(host="node7", pid=4711, since="2026-01-01T08:00:05+00:00", session="20260101_080005", released=False)


def _examples() -> dict[type[UnbrokenError], str]:
    """A real text for each error a user can meet."""
    found = [
        _raised(lambda: find_recipe("my_ap")),
        _raised(lambda: set_values({"lr": 0.01}, ["lrr", "0.02"])),
        _refused(Facts(survey=_found(GOOD), exact=WEIGHTS), start=Start(exact=WEIGHTS.path)),
        _refused(Facts(survey=replace(_found(GOOD), held=True, holder=HOLDER))),
        _refused(Facts(survey=_found(CUT_OFF))),
        UnreadableSample(
            "data/tiles/0417.png", "the picture cannot be decoded", do="Copy the file again from its source."
        ),
        NotInstalled(
            "unbroken.train",
            "torch is not installed here",
            do="python -m pip install torch (https://pytorch.org/get-started says which one for your machine).",
        ),
        ForeignFile("export.pt", "not a training state, because this is a TorchScript program, not a checkpoint"),
        _save_failed(),
        _refused(Facts(survey=_found(GOOD)), config={**CONFIG, "model": {"width": 128}}),
        _refused(Facts(survey=_found(NEWER))),
        _workers_killed(),
        _process_lost(),
        _raised(lambda: require_time_left(_job(limit=OVER))),
    ]
    return {type(error): str(error) for error in found}


def _raised(action: Any) -> UnbrokenError:
    try:
        action()
    except UnbrokenError as error:
        return error
    raise AssertionError("the example no longer fails")


def _save_failed() -> UnbrokenError:
    from unbroken.train.cadence import Every
    from unbroken.train.saving.patience import Mark, Patience

    patience = Patience(Every(steps=2000), None, good=Mark(step=8000, epoch=0, at_s=0.0))
    patience.refusal = Refused(FOLDER, "it could not be written", found="0 bytes free")
    patience.refusal.__cause__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return patience.error(FOLDER, 12001)


def _workers_killed() -> UnbrokenError:
    from unbroken.train.data.workers import giving_up

    return giving_up(-signal.SIGKILL, "samples 17, 3, 24, 8 of epoch 2 of Tiles")


def _process_lost() -> UnbrokenError:
    from unbroken.train.distributed.world import World

    return _raised(lambda: World(rank=0, size=2).lost(RuntimeError("[10.0.0.7]:29500: Connection reset by peer")))


def _job(*, start: Start | None = None, config: Mapping[str, Any] = CONFIG, limit: Limit | None = None) -> Job:
    return Job(
        recipe="my_app",
        tag="baseline",
        directory=FOLDER,
        config=config,
        effects=EFFECTS,
        seed=0,
        total_steps=40000,
        start=start or Start(),
        limit=limit,
        command="unbroken train my_app configs/baseline.py",
    )


def _refused(facts: Facts, *, start: Start | None = None, config: Mapping[str, Any] = CONFIG) -> UnbrokenError:
    job = _job(start=start, config=config)
    plan = decide(job, facts)
    assert isinstance(plan, Refuse), plan
    return refusal(job, plan)


def _found(candidate: Candidate) -> Survey:
    return Survey(
        directory=FOLDER,
        exists=True,
        record=RECORD,
        candidates=(candidate,),
        saves_ever=1,
        sessions=("20260101_080000",),
    )


if __name__ == "__main__":
    for name, text in pages().items():
        Path(__file__).with_name(name).write_text(text, encoding="utf-8")
