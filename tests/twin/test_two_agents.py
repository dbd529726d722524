"""Two machines, each with an agent of torch elastic that meets the other over loopback: what dies is started again."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

from tests.processes import PIPE, STDOUT, Popen, environment, python
from tests.twin.killing import assert_twins, events
from tests.twin.together import Together, free_port, require_ended, run_together

LOOP = Path(__file__).parent / "loops" / "together.py"
LAST = "iter_20.pth"


def agent(port: int, root: Path) -> Popen:
    """One torchrun; its process is forked from it, which has torch already."""
    machines = ("--nnodes", 2, "--nproc-per-node", 1, "--max-restarts", 1, "--start-method", "fork", "--run-path")
    place = ("--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--local-addr", "127.0.0.1")
    told = environment(PACE="0.03", TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1")  # docs/clusters.md says why
    command = python("-m", "torch.distributed.run", *machines, *place, LOOP, root)
    return Popen(command, env=told, stdout=PIPE, stderr=STDOUT, text=True)


def test_a_process_of_one_agent_that_is_killed_lets_both_begin_anew_and_end_as_if_nothing_had_been(
    tmp_path: Path,
) -> None:
    seed = 7
    print("seed", seed)
    chance = random.Random(seed)
    require_ended(run_together(python(LOOP, tmp_path / "peace"), 2), 0)
    port, root = free_port(), tmp_path / "killed"
    session = Together([agent(port, root), agent(port, root)])
    assert session.wait_for_step(root / "t", chance.randint(5, 9))
    struck = chance.choice(session.processes).pid
    [process] = Path(f"/proc/{struck}/task/{struck}/children").read_text().split()
    os.kill(int(process), signal.SIGKILL)
    require_ended(session.wait(), 0)
    assert len(events(root / "t", "session")) == 2
    assert_twins(root / "t", tmp_path / "peace" / "t", LAST)
