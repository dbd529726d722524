"""The command line: what is typed at a terminal, as calls; what they give, as words and exit codes.

A *command* is a file of `commands`, named like it; the *tree* (`tree.py`) is the one table of them, from which help and
completion are made. A *recipe* is what an application answers to behind `train`, `why` and `check`: `job.py` gives it
what was typed and gets a *job*. The *entry* (`entry.py`) is the one place where an error becomes an exit code, and
where anything else than an error of ours is caught. The *supervisor* (`supervise.py`) is a small process that starts a
training again that *crashed*: that ended by a signal or a fault of the machine, and not by an error with a code.

Every command that reports has `--json`. Nothing but `train`, `demo` and a `why` that compares shapes loads torch. To
add a command: CONTRIBUTING.md.

Touches terminal and processes (the training that is supervised).
"""

from unbroken.cli.entry import main, run, run_tool

__all__ = ["main", "run", "run_tool"]
