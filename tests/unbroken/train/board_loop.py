"""A tiny training that is told where to die: python board_loop.py FOLDER '{"steps": 20, "die_after": 13, ...}'"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import torch
from torch import nn

from unbroken.train import Progress, TrainingRun, open_run


class Numbers:
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([float(index) / 12])


def die(run: TrainingRun) -> None:
    """SIGKILL, once all that happened so far is shown."""
    run.wait_for_saves()
    run.opened.recorder.sync()
    os.kill(os.getpid(), signal.SIGKILL)


def train(
    folder: str,
    *,
    steps: int = 20,
    lr: float = 0.01,
    die_after: int = 0,
    die_in_evaluation: int = 0,
    stop_after: int = 0,
    **options: Any,
) -> None:
    """Saves after each fourth step, evaluates after each eighth; `stop_after` 0 does no step at all if negative."""
    config = {"steps": steps, "lr": lr, "name": "<b>\x1b[31m", "sizes": [1, 2]}
    effects = {"steps": "schedule", "lr": "schedule"}
    with open_run(folder, tag="tiny", config=config, effects=effects, save_every=4, **options) as run:
        torch.manual_seed(0)
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        run.track(model=model, optimizer=optimizer)

        def extra(progress: Progress) -> dict[str, Any]:
            if die_in_evaluation and progress.evaluated_step == progress.step == die_in_evaluation:
                run.opened.recorder.sync()
                os.kill(os.getpid(), signal.SIGKILL)
            return {}

        run.extra = extra

        def evaluate() -> None:
            if run.evaluation_due(8):
                run.wait_for_saves()
                run.record_evaluation(best="score", score=float(run.step) - 100 * (run.step == 16))

        def between() -> None:
            evaluate()
            if die_after and run.step == die_after:
                die(run)
            if stop_after < 0 or (stop_after and run.step == stop_after):
                run.stop("the test")

        for batch in run.batches(Numbers(), batch_size=4, steps=steps, between=between):
            loss = (model(batch) - 0.3).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.end_step(loss=loss)


if __name__ == "__main__":
    train(sys.argv[1], **json.loads(sys.argv[2]))
