"""`why`: what `train` would do, and why; the learning rate as a picture."""

from __future__ import annotations

import argparse
import io
import json
import sys
from dataclasses import replace
from pathlib import Path

from unbroken.cli.args import CommandParser, add_json
from unbroken.cli.commands.train import RECIPE
from unbroken.cli.job import job_of
from unbroken.clock import START, SystemClock
from unbroken.config import Effect
from unbroken.errors import UsageError
from unbroken.launch import Refuse, Resume, decide, gather, is_foreign, wants_shapes
from unbroken.launch.disk import planned_disk, planned_disk_lines
from unbroken.launch.explain import explain
from unbroken.launch.facts import preflight
from unbroken.launch.forecast import forecast_lines, kills_in, last_timing, start_line
from unbroken.launch.host import process_age_s
from unbroken.launch.schedule import Points, Rates, rates_of
from unbroken.storage import Disk, write_whole

COLUMNS, ROWS = 64, 9
DONE, AHEAD = ".", "#"


def why_options(parser: CommandParser) -> None:
    """A recipe, before which or behind which these options may stand."""
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help=RECIPE)
    add_json(parser)
    parser.add_argument(
        "--shapes", action="store_true", help="compare the tensors of the file with the real model (loads torch)"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the learning rate, done and to come, as a PNG")
    parser.add_argument("--timing", action="store_true", help="how long this took, and the start of the last session")
    parser.behind = frozenset({"--json", "--shapes", "--plot", "--timing"})
    parser.add_examples("unbroken why RECIPE CONFIG", "unbroken why RECIPE CONFIG --plot lr.png")


def why_command(options: argparse.Namespace) -> int:
    """Say what `train` with the same arguments would do, and why; changes nothing.

    The exit code is that of the refusal, if it is one. These options may also stand behind the recipe's own.
    """
    START.begin("imports", SystemClock().monotonic_s() - process_age_s())
    recipe, *words = options.words or [""]
    job = job_of(recipe, words, ["unbroken", "train", recipe, *words], front_door=["unbroken", "why", recipe])
    START.enter("look")
    facts = gather(job)
    START.enter("decide")
    plan = decide(job, facts)
    if options.shapes or wants_shapes(plan):
        from unbroken.train import decide_by_shapes

        plan = decide_by_shapes(job, facts)
    plan = replace(plan, warnings=(*plan.warnings, *preflight(job, plan)))
    if is_foreign(plan):
        from unbroken.train import require_takeover

        plan = replace(plan, notes=(*plan.notes, *require_takeover(job, plan)))
    timing = last_timing(facts, plan)
    sizes = None
    if options.shapes and job.blueprint and not isinstance(plan, Resume):  # else earlier saves say it better
        from unbroken.train.saving.room import sizes_of_blueprint

        sizes = sizes_of_blueprint(job)
    disk = planned_disk(job, plan, facts, timing, sizes)
    explained = explain(job, plan)
    phases, last = START.end(), timing.get("start") or {}
    if options.as_json:
        more = {"run": str(job.directory), "ignored": list(job.ignored), "disk": disk.as_data() if disk else None}
        more |= {"timing": {"why": phases, "last_session": last}} if options.timing else {}
        print(json.dumps({**explained.data, **more}, default=str))
    else:
        kills = kills_in(facts.history_of(plan).events)
        said = [*explained.lines, *forecast_lines(job, plan, timing, kills, SystemClock().now())]
        print("\n".join([*said, *planned_disk_lines(job, plan, disk)]))
        moves = isinstance(plan, Resume) and (
            bool(plan.curves) or any(change.effect is Effect.SCHEDULE for change in plan.changes)
        )
        if moves and (rates := rates_of(job, plan)) is not None and rates.ahead:
            print("\n".join(as_letters(rates)))
        if options.timing:
            print(f"timing: this took {start_line(phases)}")
            print(f"timing: the last session started in {start_line(last) or 'a time that was not recorded'}")
    if options.plot is not None:
        rates = rates_of(job, plan)
        if rates is None or not rates.all:
            expected = "a plan that trains, by a schedule"
            raise UsageError("--plot", "there is no learning rate to draw", expected=expected)
        write_picture(rates, options.plot, title=f"{job.directory}: {plan.name.lower()}")
        print(f"the learning rate is drawn in {options.plot}", file=sys.stderr)
    return plan.exit_code if isinstance(plan, Refuse) else 0


def as_letters(rates: Rates) -> list[str]:
    """A plot of letters: the rates that were used, and those to come."""
    points = rates.all
    if not points:
        return []
    last, top = points[-1][0], max(rate for _, rate in points)
    grid = [[" "] * COLUMNS for _ in range(ROWS)]
    for letter, part in ((DONE, rates.done), (AHEAD, rates.ahead)):
        for step, rate in part:
            column = (step - 1) * (COLUMNS - 1) // max(last - 1, 1)
            row = round(rate / top * (ROWS - 1)) if top else 0
            grid[ROWS - 1 - row][column] = letter
    labels = [f"{top:.3g}", *[""] * (ROWS - 2), "0"]
    width = max(map(len, labels))
    lines = [f"  {label:>{width}} |{''.join(row).rstrip()}" for label, row in zip(labels, grid)]
    legend = f"{DONE} was used, {AHEAD} to come" if rates.done and rates.ahead else "by step"
    axis = f"1{last:>{COLUMNS - 1}}"
    return [f"  learning rate ({legend})", *lines, f"  {'':>{width}}  {axis}"]


def write_picture(rates: Rates, file: Path, *, title: str) -> None:
    """Draw the same into a PNG (or whatever the name of the file says)."""
    from matplotlib.figure import Figure  # half a second, and only wanted here

    figure = Figure(figsize=(9, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="learning rate", title=title)
    if rates.done:
        axes.plot(*_columns(rates.done), color="#6b7280", label="was used")
    if rates.ahead:
        axes.plot(*_columns(rates.ahead), color="#d9480f", label="to come")
    if rates.done and rates.ahead:
        axes.axvline(rates.ahead[0][0], color="#9ca3af", linestyle=":", label="the next step")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend()
    buffer = io.BytesIO()
    try:
        figure.savefig(buffer, format=file.suffix.strip(".") or "png")
        write_whole(Disk(), file if file.suffix else file.with_suffix(".png"), buffer.getvalue())
    except (OSError, ValueError) as error:
        raise UsageError(
            file, f"the picture cannot be written ({error})", expected="a .png, .svg or .pdf in a folder that exists"
        ) from error


def _columns(points: Points) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [rate for _, rate in points]
