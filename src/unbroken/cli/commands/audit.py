"""`audit`: what the records of a run prove about it, printed."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from unbroken.cli.args import CommandParser, add_json
from unbroken.cli.runs import add_run, run_folder
from unbroken.cli.tables import as_json_text, columns
from unbroken.errors import DamagedFile
from unbroken.quantities import counted
from unbroken.report.audit import Audit, audit
from unbroken.report.findings import span

MOST_FINDINGS = 40
MOST_NOTES = 20


def audit_options(parser: CommandParser) -> None:
    """A run."""
    add_run(parser)
    parser.add_argument(
        "--verify", action="store_true", help="also read every byte of every checkpoint and compare its digest"
    )
    add_json(parser)
    parser.add_examples("unbroken audit RUN")


def audit_command(options: argparse.Namespace) -> int:
    """Prove from the records alone that each step was done once and each sample used once per epoch, over all sessions.

    Exit code 12 if something is wrong: each finding names its file, line, step and sample. Changes nothing.
    """
    found = audit(run_folder(options.run), verify=options.verify)
    print(as_json_text(found.as_data()) if options.as_json else "\n".join(_lines(found)))
    return 0 if found.good else DamagedFile.exit_code


def _lines(found: Audit) -> Iterator[str]:
    yield f"{found.run}" + (" (running: as of now)" if found.running else "")
    rows = []
    for session in found.sessions:
        steps = f"{session.first}-{session.last}" if session.last else "none"
        began = session.verdict + (f" after {session.base}" if session.base else "")
        rows.append((session.name, began, steps, str(session.kept), session.ended))
    if rows:
        yield columns([("session", "began", "steps", "in the final history", "ended"), *rows])
    yield from _facts(found)
    for note in found.notes[:MOST_NOTES]:
        yield f"note: {note}"
    if len(found.notes) > MOST_NOTES:
        yield f"note: and {len(found.notes) - MOST_NOTES} more (--json lists all)"
    for finding in found.findings[:MOST_FINDINGS]:
        yield f"wrong: {finding}"
    if len(found.findings) > MOST_FINDINGS:
        yield f"wrong: and {len(found.findings) - MOST_FINDINGS + found.more_findings} more (--json lists them)"
    yield found.verdict


def _facts(found: Audit) -> Iterator[str]:
    repeats = found.repeats
    if found.steps:
        yield f"steps: {span(found.first + 1, found.last).partition(' ')[2]}, {found.missing} without a record"
    if repeats.lost:
        yield (
            f"lost: {counted(repeats.lost, 'step')}; done again and compared: {repeats.compared}, "
            f"bit-identical: {repeats.identical}" + _changed(found)
        )
    if found.size:
        yield (
            f"samples: {found.samples} used, data set of {found.size}, {counted(found.whole_epochs, 'whole epoch')}"
            + (f", {found.excused} left out as unreadable" if found.excused else "")
        )
    for epoch in found.epochs:
        if not epoch.whole or epoch.begun_before:
            part = "whole" if epoch.whole else "not to its end"
            part = "its beginning is not in these records" if epoch.begun_before else part
            used = f"{epoch.once} of {epoch.size} samples used once, {len(epoch.twice)} more than once"
            yield f"epoch {epoch.number + 1}: {part}, {used}"
    yield f"saves: {found.saves}; evaluations: {found.evaluations}"
    yield from (f"changed {change}" for change in found.changes)


def _changed(found: Audit) -> str:
    repeats = found.repeats
    resized = f"; of a data set of another size: {repeats.resized}" if repeats.resized else ""
    if not repeats.changed:
        return resized
    order = "in the same order" if repeats.other_order is None else f"in another order from step {repeats.other_order}"
    return f"; under a changed config: {repeats.changed}, their samples {order}{resized}"
