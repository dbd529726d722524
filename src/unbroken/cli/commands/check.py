"""`check`: every sample of a config's data sets is read once; what cannot be read is named."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from unbroken.cli.args import CommandParser, add_json
from unbroken.cli.commands.train import RECIPE
from unbroken.cli.job import job_of
from unbroken.errors import DamagedFile, UnbrokenError, UsageError
from unbroken.launch import load_attribute
from unbroken.launch.host import in_notebook

USUAL_WORKERS = 4  # where neither the command nor the recipe says how many


def check_options(parser: CommandParser) -> None:
    """A recipe; `--json` may stand before or behind it."""
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help=RECIPE)
    add_json(parser)
    parser.behind = frozenset({"--json"})
    parser.add_examples("unbroken check RECIPE CONFIG")


def check_command(options: argparse.Namespace) -> int:
    """Read every sample of a config's data sets once, and name those that cannot be read; no run is touched.

    The arguments are those of `train`. The exit code is 12 if a sample cannot be read. `--json` may also stand behind.
    """
    recipe, *words = options.words or [""]
    as_json = options.as_json
    job = job_of(recipe, words, ["unbroken", "check", recipe, *words], front_door=["unbroken", "check", recipe])
    if not job.datasets:
        raise UsageError(recipe, "this recipe does not say which data sets it reads", expected="Job(datasets=...)")
    from unbroken.train import check_dataset

    workers = job.options.workers
    data, any_bad = [], False
    datasets = load_attribute(job.datasets)(job)
    # What a launch asks of the data, told at once; samples that cannot be read are left to who reads all of them.
    accidents = replace(job.options.accidents, on_bad="skip")
    lenient = replace(job, options=replace(job.options, accidents=accidents))
    warnings: tuple[str, ...] = ()
    refused: UnbrokenError | None = None
    try:
        warnings = tuple(load_attribute(job.preflight)(lenient) if job.preflight else ())
    except UnbrokenError as error:
        refused = error
    if not as_json:
        for line in [*(f"warning: {each}" for each in warnings), *([refused] if refused else [])]:
            print(line)
    for name, dataset in datasets.items():
        with _progress(name, len(dataset), quiet=as_json) as progress:
            found = check_dataset(dataset, workers=USUAL_WORKERS if workers is None else workers, progress=progress)
        any_bad = any_bad or bool(found.bad)
        bad = [{"sample": each.sample, "reason": each.reason} for each in found.bad]
        data.append({"data_set": name, "samples": found.samples, "unreadable": bad})
        if not as_json:
            for each in found.bad:
                print(f"{name} sample {each.sample}: {each.reason}")
            print(f"{name}: {found.samples} samples read, {len(bad) or 'none'} of them unreadable")
    if as_json:
        told = {"refused": refused.as_data() if refused else None, "warnings": warnings}
        print(json.dumps({"data_sets": data, **told}, ensure_ascii=False))
    if any_bad:
        return DamagedFile.exit_code
    return refused.exit_code if refused else 0


@contextmanager
def _progress(name: str, samples: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Shows how many were read: a bar where a person watches, a line at each tenth elsewhere."""
    terminal = RichConsole(file=sys.stderr)
    if not quiet and terminal.is_terminal and not terminal.is_dumb_terminal and not in_notebook():
        columns = TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=terminal, transient=True) as bar:
            task = bar.add_task(name, total=samples)
            yield lambda read: bar.update(task, completed=read)
        return
    tenth = max(samples // 10, 1)

    def say(read: int) -> None:
        if not quiet and read % tenth == 0 and read < samples:
            print(f"{name}: {read} of {samples}", flush=True)

    yield say
