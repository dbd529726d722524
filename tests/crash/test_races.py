"""Each pair of commands started in one moment on one run: nothing is lost, and each ends with a documented code.

Many more starts of each pair: `python -m tests.crash.races FOLDER --times 50`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.twin.killing import environment

TIMES, SEED = os.environ.get("UNBROKEN_TEST_RACES", "1"), "20261129"


def test_no_two_commands_started_at_once_lose_a_save_or_end_in_a_way_that_is_not_documented(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.crash.races", str(tmp_path), "--times", TIMES, "--seed", SEED]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, "\n".join(line for line in done.stdout.splitlines() if "NOT SO" in line) or done.stderr
    assert f"{45 * int(TIMES)} starts, 0 not as they must be" in done.stdout
