"""What happened to a run, in the order it happened, append-only.

*Events* (`journal.jsonl`) are the few things a person asks about afterwards: sessions, plans, saves, evaluations,
damage found, files set aside. *Steps* (`metrics.jsonl`) hold one line per optimizer step: its values, bit for bit, a
probe of the weights after it and the ids of the samples it used - the fingerprint that proves a repeated step was the
same step - and one line per evaluation; a line between them says where a resume rewound the history. A line is one JSON
object; a last line without its newline is what a kill left, and does not count.

Touches files (it appends to these two, and to no other).
"""

from unbroken.journal.events import NO_SESSION, Event, as_event
from unbroken.journal.file import (
    DamagedLine,
    Journal,
    JournalContents,
    read_events,
    read_events_backwards,
    read_journal,
)
from unbroken.journal.steps import (
    Samples,
    StepLog,
    as_recorded,
    compare_steps,
    evaluated_step,
    is_comparable,
    is_samples,
    listed,
    packed,
    reached,
    read_steps,
    steps_after,
    values_of,
)

__all__ = [
    "NO_SESSION",
    "DamagedLine",
    "Event",
    "Journal",
    "JournalContents",
    "Samples",
    "StepLog",
    "as_event",
    "as_recorded",
    "compare_steps",
    "evaluated_step",
    "is_comparable",
    "is_samples",
    "listed",
    "packed",
    "reached",
    "read_events",
    "read_events_backwards",
    "read_journal",
    "read_steps",
    "steps_after",
    "values_of",
]
