"""The launch decision: what a command would do to a run, and why, decided before anything is touched.

A *job* is what the user asked for, read from arguments and config: where, with which settings, how far. *Facts* are
what is on disk (a survey, and the files the job names). The *plan* is a pure function of both:
`Fresh | Resume | FineTune | Finished | Refuse`, each with its reasons. *Execute* carries a plan out and returns the
open run. `why` stops after the plan.

Read first: `decision.py` (what is asked in which order), `facts.py`, `decide.py` (pure), `execute.py`.

Touches files (`execute.py`, and the lock of `decision.py`: all else looks), environment (`host.py`)
and processes (which one this is, and what version control says of the program).
"""

from unbroken.launch.decide import Facts, decide, is_foreign, wants_shapes
from unbroken.launch.facts import gather
from unbroken.launch.job import Accidents, Environment, Job, LaunchOptions, Recipe, Start, find_recipe, load_attribute
from unbroken.launch.verdicts import FineTune, Finished, Fresh, GoingPlan, Plan, Refuse, Resume

__all__ = [
    "Accidents",
    "Environment",
    "Facts",
    "FineTune",
    "Finished",
    "Fresh",
    "GoingPlan",
    "Job",
    "LaunchOptions",
    "Plan",
    "Recipe",
    "Refuse",
    "Resume",
    "Start",
    "decide",
    "find_recipe",
    "gather",
    "is_foreign",
    "load_attribute",
    "wants_shapes",
]
