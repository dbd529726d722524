"""A loop whose model and optimizer are sharded over its processes by FSDP2, as torchrun starts them.

sharded.py ROOT [STOP_AFTER]: with STOP_AFTER it stops in order after that step, everything saved.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard

from unbroken import open_run

KIND = os.environ.get("KIND", "")
RANK = int(os.environ.get("RANK", "0"))


class Points(torch.utils.data.Dataset[Any]):
    """Each is drawn anew in each epoch."""

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(6) * 0.1 + index / 60
        return x, x.sum().reshape(1)


class Momentum(torch.optim.Optimizer):
    """Keeps of each weight what belongs to the part that lies here, as a tensor that does not say so."""

    def __init__(self, weights: Any, lr: float) -> None:
        super().__init__(weights, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Go one step."""
        for weight in self.param_groups[0]["params"]:
            here, kept = weight.to_local(), self.state[weight]
            kept["mean"] = kept.get("mean", torch.zeros_like(here)) * 0.9 + weight.grad.to_local()
            here -= 0.01 * kept["mean"]


def build() -> nn.Module:
    """A network that is drawn as one process would draw it, then sharded, module by module."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 16),
        nn.LayerNorm(16),
        nn.ReLU(),
        nn.Dropout(0.0 if KIND in ("whole", "nothing drawn") else 0.2),
        nn.Linear(16, 1),
    )
    if KIND == "batch norm":
        model.insert(1, nn.BatchNorm1d(16))
    if KIND != "whole":
        fully_shard(model[0])
        if KIND != "partly":
            fully_shard(model)
    return model


def main() -> None:
    """Train."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("gloo")
    else:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    model = build()
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    if KIND == "momentum of a part":
        optimizer = Momentum(model.parameters(), lr=0.01)
    schedule: Any = torch.optim.lr_scheduler.StepLR(optimizer, 5)
    if KIND == "schedule of a loss":
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    stop_after = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    keep = int(os.environ.get("KEEP", "0")) or None
    file = os.environ.get("FILE")
    asked: dict[str, Any] = {KIND: file} if file else {}
    with open_run(sys.argv[1], tag="t", save_every=4, save_every_s=None, log_every=1, keep_last=keep, **asked) as run:
        run.track(model=model, optimizer=optimizer, scheduler=schedule)

        def evaluate() -> dict[str, float]:
            with torch.no_grad():
                error = model(torch.full((2, 6), 0.5)).sum()
            return {"error": float(error)}

        how: dict[str, Any] = {"batch_size": int(os.environ.get("BATCH", "12"))}
        if KIND == "evaluated":
            how |= {"evaluate": evaluate, "evaluate_every": 4, "best": "error"}
        for x, y in run.batches(Points(), epochs=4, **how):
            loss = nn.functional.mse_loss(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step(*([loss.item()] if KIND == "schedule of a loss" else []))
            run.log(loss=loss)
            if KIND == "one disk is full" and RANK == 1 and run.step in (2, 5):
                most = 4096 if run.step == 2 else resource.RLIM_INFINITY
                resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
            time.sleep(float(os.environ.get("PACE", "0")))
            if run.step + 1 == stop_after:
                run.stop("what the test asks for")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
