"""What a run of many sessions costs, each killed after a few steps: python -m benchmarks.sessions [SESSIONS ...]

One small run is trained by real sessions, each forked and killed after three steps, the last of them not saved.
After 3, 30 and 300: how long a session takes to come to its first batch, how long `summary_of` (a row of `ls`) and
`overview_of` (`show`) take, how many files the run has, and how long its journal is. Each time is the best of several.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.unbroken.train.many_sessions import TAG, session, warm_up

from unbroken.cli.commands.show import overview_of
from unbroken.run.summary import summary_of

TURNS = 5
COUNTS = (3, 30, 300)


def best_ms(act: Callable[[], object]) -> float:
    times = []
    for _ in range(TURNS):
        began = time.perf_counter()
        act()
        times.append((time.perf_counter() - began) * 1e3)
    return min(times)


def main() -> None:
    counts = sorted(map(int, sys.argv[1:])) or COUNTS
    with tempfile.TemporaryDirectory() as name:
        root, starts_ms = Path(name), list[float]()
        run = root / TAG
        warm_up()
        print("sessions  start ms   ls ms  show ms  files  journal, bytes a session")
        for number in range(1, counts[-1] + 1):
            session(root, number, keep_last=2)
            starts_ms.append(json.loads((root / "began.json").read_text()))
            if number in counts:
                ls_ms, show_ms = best_ms(lambda: summary_of(run)), best_ms(lambda: overview_of(run))
                files = sum(path.is_file() for path in run.rglob("*"))
                journal = (run / "unbroken" / "journal.jsonl").stat().st_size / number
                start_ms = min(starts_ms[-TURNS:])
                print(f"{number:8d} {start_ms:9.1f} {ls_ms:7.1f} {show_ms:8.1f} {files:6d} {journal:25.0f}", flush=True)


if __name__ == "__main__":
    main()
