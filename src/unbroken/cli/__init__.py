"""The command line: the only room that prints, reads the environment and decides exit codes.

Every command that reports has `--json`. Nothing but `train`, `demo` and a `why` that compares shapes
loads torch.
"""

from unbroken.cli.entry import main, run, run_tool

__all__ = ["main", "run", "run_tool"]
