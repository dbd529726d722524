"""The command line: the only room that prints, reads the environment and decides exit codes.

Every command that reports has `--json`. Nothing but `train` and `demo` loads torch.
"""

from unbroken.cli.entry import main, run, run_tool

__all__ = ["main", "run", "run_tool"]
