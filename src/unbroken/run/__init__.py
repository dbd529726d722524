"""A run on disk: where its files lie, who it is, what state it is in, and the run held open for work.

A *layout* gives the names of a run's files, as the guides show them. The *record* (`unbroken/run.json`) says once and
for all which run this is. A *survey* is everything a launch needs to know about a folder, gathered by looking only.
A *candidate* is a file one could resume from, with what is wrong with it if something is. An *open run* holds the
lock, the journal and the store for one session.
"""

from unbroken.run.candidates import Candidate, look_at
from unbroken.run.layout import EPOCHS, ITERATIONS, Layout
from unbroken.run.opened import OpenRun, SessionFiles
from unbroken.run.record import RunRecord, layout_of, read_record
from unbroken.run.survey import Restoring, Survey, survey

__all__ = [
    "EPOCHS",
    "ITERATIONS",
    "Candidate",
    "Layout",
    "OpenRun",
    "Restoring",
    "RunRecord",
    "SessionFiles",
    "Survey",
    "layout_of",
    "look_at",
    "read_record",
    "survey",
]
