"""`check`: every sample of a config's data sets is read once; what cannot be read is named."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from unbroken.cli.train import job_of
from unbroken.errors import DamagedFile, UnbrokenError, UsageError
from unbroken.launch import Job, load_attribute
from unbroken.launch.host import in_notebook

USUAL_WORKERS = 4  # where neither the command nor the recipe says how many


def check_command(recipe: str, arguments: Sequence[str], *, as_json: bool) -> int:
    """Check the data sets; the exit code is that of damage, or that of a launch that would be refused for them."""
    asked = [word for word in arguments if word != "--json"]
    as_json = as_json or len(asked) < len(arguments)
    job = job_of(recipe, asked, ["unbroken", "check", recipe, *asked], front_door=["unbroken", "check", recipe])
    if not job.datasets:
        raise UsageError(recipe, "this recipe does not say which data sets it reads", expected="Job(datasets=...)")
    from unbroken.train import check_dataset

    workers = job.options.get("workers")
    data, any_bad = [], False
    datasets = load_attribute(job.datasets)(job)
    findings = _findings(job, as_json=as_json)
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
        told = {"refused": findings.refused.as_data() if findings.refused else None, "warnings": findings.warnings}
        print(json.dumps({"data_sets": data, **told}, ensure_ascii=False))
    if any_bad:
        return DamagedFile.exit_code
    return findings.refused.exit_code if findings.refused else 0


@dataclass(frozen=True, kw_only=True)
class _Findings:
    """What a launch would say of the data: why it would be refused, or what it would warn of."""

    refused: UnbrokenError | None = None
    warnings: tuple[str, ...] = ()


def _findings(job: Job, *, as_json: bool) -> _Findings:
    """What a launch asks of the data, told at once; samples that cannot be read are left to who reads all of them."""
    lenient = replace(job, options={**job.options, "on_bad": "skip"})
    try:
        found = _Findings(warnings=tuple(load_attribute(job.preflight)(lenient) if job.preflight else ()))
    except UnbrokenError as error:
        found = _Findings(refused=error)
    if not as_json:
        for line in [*(f"warning: {each}" for each in found.warnings), *([found.refused] if found.refused else [])]:
            print(line)
    return found


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
