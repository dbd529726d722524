"""What an application shows itself with: sample data, and a training that is killed, resumed and compared.

*Sample data* are made up, so that an application can be tried without a download: a folder of them is whole, or is
written again. A *story* is a demonstration: real processes that train, and real SIGKILLs; beside the run that is
interrupted its *twin* trains in one piece, and both are compared bit by bit. *Curves* show the sessions of the one over
the other.

Read first: `sample_data.py`, then `story.py`. A door for applications: it loads neither torch nor numpy before a
comparison.

Touches files (the sample data, what the processes print, pictures), environment (handed on to the processes) and
processes (they are started, and killed).
"""

from unbroken.demo.sample_data import write_samples
from unbroken.demo.story import (
    compare_runs,
    draw_curves,
    losses_of,
    say_verdict,
    sessions_of,
    started,
    steps_done,
    train_until,
    typed,
)

__all__ = [
    "compare_runs",
    "draw_curves",
    "losses_of",
    "say_verdict",
    "sessions_of",
    "started",
    "steps_done",
    "train_until",
    "typed",
    "write_samples",
]
