"""Small values that every room shares: names of runs and sessions, paths and typed values out of records, the clock.

A *run id* is the random name a run gets once; it is inside every checkpoint, so that a file is recognised wherever it
is copied to. A *session name* is the local time at which a process began to work on a run.
"""

from unbroken.values.addresses import is_remote, require_local
from unbroken.values.clock import Clock, SystemClock, clock_time, local_moment, shown_time, utc_text
from unbroken.values.fields import BadField, number_of, numbers_of, step_of, typed
from unbroken.values.ids import free_name, new_id
from unbroken.values.places import LeadsOut, is_name, place, why_unsafe
from unbroken.values.text import ESCAPED, NOT_TEXT, as_bytes, encodable, encoding_of, text_of

__all__ = [
    "ESCAPED",
    "NOT_TEXT",
    "BadField",
    "Clock",
    "LeadsOut",
    "SystemClock",
    "as_bytes",
    "clock_time",
    "encodable",
    "encoding_of",
    "free_name",
    "is_name",
    "is_remote",
    "local_moment",
    "new_id",
    "number_of",
    "numbers_of",
    "place",
    "require_local",
    "shown_time",
    "step_of",
    "text_of",
    "typed",
    "utc_text",
    "why_unsafe",
]
