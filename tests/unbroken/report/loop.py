"""A tiny training for the audits and the watch: python loop.py FOLDER '{"batch_size": 4, ...}'; can kill itself."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

import torch
from torch import nn

from unbroken.errors import DamagedFile
from unbroken.train import open_run


class Numbers:
    def __init__(self, size: int, bad: list[int]) -> None:
        self.size, self.bad = size, bad

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> torch.Tensor:
        if index in self.bad:
            raise DamagedFile(f"frame {index}", "it is truncated")
        return torch.full((1,), index / self.size) + 0.1 * torch.randn(1)


def main(
    folder: str,
    *,
    size: int = 22,
    bad: tuple[int, ...] = (),
    batch_size: int = 4,
    epochs: int | None = 3,
    steps: int | None = None,
    shuffle: Any = True,
    drop_last: bool = False,
    accumulate: int = 1,
    kill_at: int = 0,
    pause_s: float = 0.0,
    evaluate: int = 0,
    own_batches: bool = False,
    **options: Any,
) -> None:
    config = {"batch_size": batch_size}
    options = {"save_every": 4, "save_every_s": None, **options}
    with open_run(folder, tag="tiny", config=config, **options) as run:
        model = nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.2), nn.Linear(4, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        run.track(model=model, optimizer=optimizer)
        batches = (
            (torch.randn(batch_size, 1) for _ in run.steps(steps or 9))
            if own_batches
            else run.batches(
                Numbers(size, list(bad)),
                batch_size=batch_size,
                epochs=None if steps else epochs,
                steps=steps,
                shuffle=shuffle,
                drop_last=drop_last,
            )
        )
        for number, batch in enumerate(batches, start=1):
            if kill_at and run.step == kill_at:  # the step before is written down
                run.wait_for_saves()
                os.kill(os.getpid(), signal.SIGKILL)
            model(batch).square().mean().backward()
            if number % accumulate:
                continue
            optimizer.step()
            optimizer.zero_grad()
            run.end_step(loss=model(batch).square().mean())
            time.sleep(pause_s)
            if evaluate and run.step % evaluate == 0:
                run.record_evaluation(best="score", score=run.step / 100)


if __name__ == "__main__":
    main(sys.argv[1], **json.loads(sys.argv[2]))
