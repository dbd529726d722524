"""`prune`: what of runs goes, what stays and why, and how much room that makes."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unbroken.checkpoint import NEVER_FEWER_THAN
from unbroken.checkpoint.removal import GOING_SUFFIX
from unbroken.checkpoint.retention import Policy, RetentionDecision
from unbroken.cli.args import CommandParser, add_json
from unbroken.cli.runs import add_runs, run_folder
from unbroken.cli.tables import as_json_text, columns
from unbroken.clock import SystemClock
from unbroken.errors import UnbrokenError, UsageError
from unbroken.keep.prune import Pruning, plan_pruning, prune
from unbroken.quantities import counted, size_text, some_of
from unbroken.run.summary import find_runs
from unbroken.storage import Disk
from unbroken.text import shown

MOST_NAMES = 6
LONGEST_ERROR = 2_000


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One run: what was decided and, where it was done, what went; or why it was left out."""

    run: Path
    plan: Pruning | None = None
    gone: tuple[RetentionDecision, ...] = ()
    done: bool = False
    room_bytes: int = 0
    left_out: UnbrokenError | None = None


def prune_options(parser: CommandParser) -> None:
    """Runs, what of them stays, and whether it is done."""
    add_runs(parser, "RUN", "runs (folders or tags), or folders with runs")
    parser.add_argument(
        "--keep-last", type=int, default=2, metavar="N", help="keep the last so many checkpoints (default: 2)"
    )
    parser.add_argument(
        "--keep-every",
        type=int,
        metavar="K",
        help="also keep each K-th step, or epoch where names count epochs",
    )
    parser.add_argument(
        "--keep-best",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep the checkpoint whose evaluation is the best (default: %(default)s)",
    )
    parser.add_argument("--damaged", action="store_true", help="let damaged checkpoints go too")
    parser.add_argument("--explain", action="store_true", help="say of each file why it stays or goes; changes nothing")
    parser.add_argument("--dry-run", action="store_true", help="say what would go; changes nothing")
    parser.add_argument("--yes", action="store_true", help="do it to several runs, which are else only looked at")
    add_json(parser)
    parser.meant["keep"] = "--keep-last N"
    parser.add_examples("unbroken prune RUN --keep-last 3 --explain", "unbroken prune work_dirs --yes")


def prune_command(asked: argparse.Namespace) -> None:
    """Remove checkpoints that nothing needs. What stays is verified first, and two verified states always stay.

    Best weights, pinned files (`unbroken pin`) and files that the training would not write under their names stay. One
    run is pruned at once; several are only looked at without --yes. A run that is being trained is left alone.
    """
    for option, number in (("--keep-last", asked.keep_last), ("--keep-every", asked.keep_every)):
        if number is not None and number < 1:
            raise UsageError(option, "this keeps nothing", expected="a number from 1 on", found=number)
    policy = Policy(
        keep_last=asked.keep_last, keep_every=asked.keep_every, keep_best=asked.keep_best, damaged=asked.damaged
    )
    runs, several = _runs(asked.run)
    acts = not asked.explain and not asked.dry_run and (asked.yes or not several)
    outcomes = [_one(run, policy, acts=acts, several=several) for run in runs]
    if asked.as_json:
        print(as_json_text([_as_data(outcome) for outcome in outcomes]))
        return
    for outcome in outcomes:
        print("\n".join(_words(outcome, shown(outcome.run), explain=asked.explain)))
    if several:
        print(_sum(outcomes, acts=acts))
    if not acts and any(_has_work(outcome) for outcome in outcomes):
        print(f"nothing was changed; to do it: {_command(asked.run, policy, several=several)}")
    elif not acts:
        print("nothing was changed, and nothing would be")


def _runs(places: Sequence[Path]) -> tuple[list[Path], bool]:
    """The runs that are meant, each once, and whether there may be more than one."""
    found: dict[Path, Path] = {}
    several = len(places) > 1
    for place in places:
        below = list(find_runs(place)) if place.is_dir() else []
        runs = below if below and below != [place] else [run_folder(place)]
        several = several or runs != [place]
        found.update({run.resolve(): found.get(run.resolve(), run) for run in runs})
    return list(found.values()), several


def _one(run: Path, policy: Policy, *, acts: bool, several: bool) -> Outcome:
    try:
        if not acts:
            plan = plan_pruning(run, policy)
            return Outcome(run=run, plan=plan, room_bytes=plan.room_bytes)
        done = prune(run, policy, disk=Disk(), clock=SystemClock())
        return Outcome(run=run, plan=done.plan, gone=done.gone, done=True, room_bytes=done.room_bytes)
    except UnbrokenError as error:
        if not several:
            raise
        return Outcome(run=run, left_out=error)


def _words(outcome: Outcome, run: str, *, explain: bool) -> list[str]:
    plan = outcome.plan
    if plan is None:
        return [f"{run}: left out: {shown(outcome.left_out, LONGEST_ERROR)}"]
    went = outcome.gone if outcome.done else plan.going
    verb = "went" if outcome.done else "would go"
    lines = [f"{run}: {counted(len(went), 'file')} {verb}, {size_text(outcome.room_bytes)}; {len(plan.staying)} stay"]
    if not went and not plan.leftovers:
        lines = [f"{run}: nothing goes; {counted(len(plan.staying), 'file')} stay{'s' * (len(plan.staying) == 1)}"]
        if plan.sound < NEVER_FEWER_THAN:
            states = f"{plan.sound} verified state{' is' if plan.sound == 1 else 's are'} here"
            lines[0] += f" ({states}; {NEVER_FEWER_THAN} have to stay)"
    if explain:
        return [*lines, columns([("file", "size", "", "why"), *_rows(plan)])]
    if went:
        lines.append(f"  {verb}: {_names([item.name for item in went])}")
        lines += [f"  stays: {shown(item.name)} ({item.reason})" for item in plan.staying]
    return lines + [f"  {words}" for words in _of_leftovers(plan, done=outcome.done)]


def _rows(plan: Pruning) -> list[tuple[str, str, str, str]]:
    rows = [
        (item.name, size_text(plan.sizes.get(item.name, 0)), "stays" if item.keep else "goes", item.reason)
        for item in plan.decisions
    ]
    for name in plan.leftovers:
        left = name + GOING_SUFFIX
        why = f"its removal was cut off; to keep it, rename it to {name}"
        rows.append((left, size_text(plan.sizes[left]), "goes" if plan.ends_removals else "stays", why))
    return rows


def _of_leftovers(plan: Pruning, *, done: bool) -> list[str]:
    if not plan.leftovers:
        return []
    names = _names([name + GOING_SUFFIX for name in plan.leftovers])
    if not plan.ends_removals:
        return [f"left from a removal that was cut off: {names}; to use such a file again, take {GOING_SUFFIX} away"]
    return [f"{'ended' if done else 'would end'} a removal that was cut off: {names}"]


def _sum(outcomes: Sequence[Outcome], *, acts: bool) -> str:
    room = sum(outcome.room_bytes for outcome in outcomes)
    files = sum(len(outcome.gone if acts else outcome.plan.going) for outcome in outcomes if outcome.plan)
    left_out = sum(outcome.plan is None for outcome in outcomes)
    others = f", {left_out} left out" if left_out else ""
    verb = "went" if acts else "would go"
    return f"{counted(len(outcomes), 'run')}{others}: {counted(files, 'file')} {verb}, {size_text(room)}"


def _has_work(outcome: Outcome) -> bool:
    return outcome.plan is not None and bool(
        outcome.plan.going or (outcome.plan.leftovers and outcome.plan.ends_removals)
    )


def _command(places: Sequence[Path], policy: Policy, *, several: bool) -> str:
    """The command that does what was shown."""
    words = ["unbroken", "prune", *(shlex.quote(str(place)) for place in places), f"--keep-last {policy.keep_last}"]
    words += [f"--keep-every {policy.keep_every}"] if policy.keep_every else []
    words += [] if policy.keep_best else ["--no-keep-best"]
    words += ["--damaged"] if policy.damaged else []
    return " ".join([*words, *(["--yes"] if several else [])])


def _as_data(outcome: Outcome) -> dict[str, Any]:
    data: dict[str, Any] = {"run": str(outcome.run), "done": outcome.done, "room_bytes": outcome.room_bytes}
    if outcome.plan is None:
        return data | {"left_out": outcome.left_out.as_data() if outcome.left_out else None}
    plan, gone = outcome.plan, {item.name for item in outcome.gone}
    return data | {
        "verified_states": plan.sound,
        "files": [
            {
                "file": item.name,
                "size_bytes": plan.sizes.get(item.name, 0),
                "keep": item.keep and item.name not in gone,
                "rule": item.rule,
                "reason": item.reason,
            }
            for item in plan.decisions
        ],
        "removals_cut_off": [name + GOING_SUFFIX for name in plan.leftovers],
    }


def _names(names: Sequence[str]) -> str:
    return some_of(list(map(shown, names)), MOST_NAMES)
