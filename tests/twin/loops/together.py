"""A loop for any number of processes, as torchrun starts them: DistributedDataParallel, dropout, batch normalisation.

together.py ROOT [STOP_AFTER]: with STOP_AFTER it stops in order after that step, everything saved.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from unbroken import open_run

MANY = int(os.environ.get("WORLD_SIZE", "1")) > 1
KIND = os.environ.get("KIND", "")
ON_BAD = "stop" if KIND == "one cannot read" else "skip"
WITHOUT_WRAPPER = ("forgotten", "other seeds", "sharded", "no group of its own", "wrapped in the loop")
RANK = int(os.environ.get("RANK", "0"))


class Points(torch.utils.data.Dataset[Any]):
    """Each is drawn anew in each epoch."""

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if KIND == "one cannot read" and RANK == 1:
            raise ValueError("torn")
        if KIND == "unreadable" and (index % 7 == 3 or index in range(12, 20)):
            raise ValueError("torn")
        x = torch.randn(6) * 0.1 + index / 60
        return x, x.sum().reshape(1)


class Interrupting(dist.ProcessGroupGloo):
    """Sends a signal to this process while it agrees with the others on whether to stop, after the third step."""

    agreements = 0

    def allgather(self, rows: Any, row: Any) -> Any:
        """That is the message of 128 bytes; what this process has to say is in it by now."""
        work = super().allgather(rows, row)
        self.agreements += row[0].numel() == 128
        if row[0].numel() == 128 and self.agreements == 3 and RANK == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return work


def main() -> None:
    """Train."""
    if MANY and KIND != "no group of its own" and not dist.is_initialized():
        dist.init_process_group("gloo")
    torch.manual_seed(0 if KIND != "other seeds" else dist.get_rank())
    norm = nn.SyncBatchNorm if KIND == "synchronised" else nn.BatchNorm1d
    dropout = nn.Dropout(0.0 if KIND == "nothing drawn" else 0.2)
    model: nn.Module = nn.Sequential(
        nn.Linear(6, 16),
        nn.LayerNorm(16),
        nn.ReLU(),
        dropout,
        nn.Linear(16, 1),
    )
    if KIND == "batch norm":
        model.insert(1, norm(16))  # type: ignore[operator]  # a Sequential has it
    net = DistributedDataParallel(model) if MANY and KIND not in WITHOUT_WRAPPER else model
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    if KIND == "sharded":
        from torch.distributed.fsdp import FullyShardedDataParallel

        net = FullyShardedDataParallel(model, device_id=torch.device("cpu"))
    if KIND == "asked while they agree":
        dist.ProcessGroupGloo = Interrupting  # type: ignore[misc]
    stop_after = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with open_run(sys.argv[1], tag="t", save_every=4, save_every_s=None, log_every=1, on_bad=ON_BAD) as run:
        if KIND != "one tracks" or RANK == 0:
            run.track(model=model if KIND == "inside" else net, optimizer=optimizer)
        if KIND == "own generators":
            run.track(generator=torch.Generator().manual_seed(RANK), of_numpy=np.random.default_rng(RANK))
            for _ in run.steps(4):
                raise AssertionError("a step was begun")
        if os.environ.get("PREPARES") == str(RANK):  # until it is let go
            Path(sys.argv[1], "prepares").touch()
            while not Path(sys.argv[1], "go").exists():
                time.sleep(0.002)
        source: Any = Points()

        def evaluate() -> dict[str, float] | None:
            error = model(torch.full((2, 6), float(RANK))).sum().detach()
            dist.all_reduce(error)
            return {"error": float(error)} if RANK == 0 else None

        how: dict[str, Any] = {"batch_size": int(os.environ.get("BATCH", "12"))}
        if KIND == "other batches" and RANK == 1:
            how["batch_size"] -= 2
        if KIND == "sampler":
            sampler = torch.utils.data.DistributedSampler(source, shuffle=True)
            each = 12 // dist.get_world_size()
            source, how = torch.utils.data.DataLoader(source, batch_size=each, sampler=sampler, num_workers=2), {}
        if KIND == "inside":
            how |= {"evaluate": evaluate, "evaluate_every": 3, "best": "error"}
        for x, y in run.batches(source, epochs=4, **how):
            if KIND.startswith("leaves in mid-step") and run.step == 2 and KIND.endswith(f" {RANK}"):
                break
            if KIND == "wrapped in the loop" and net is model:
                net = DistributedDataParallel(model)
            loss = nn.functional.mse_loss(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log(loss=loss if KIND != "one logs a word" or RANK == 0 or run.step < 2 else "low")
            if KIND == "one finishes" and RANK == 1 and run.step == 2:
                run.finish("what one process found")
            if KIND == "one leaves" and RANK == 1 and run.step == 2:
                break
            time.sleep(float(os.environ.get("PACE", "0")))
            if run.step + 1 == stop_after:
                run.stop("what the test asks for")


if __name__ == "__main__":
    main()
    if KIND == "two runs":
        sys.argv[1] += "/second"
        main()
