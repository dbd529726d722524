"""A training that saves after every step and keeps two saves, as fast as it can: its files go all the time."""

from __future__ import annotations

import sys

import torch

from unbroken.train import open_run

torch.set_num_threads(1)
with open_run(sys.argv[1], tag="busy", config={"lr": 0.1}, save_every=1, save_every_s=None, keep_last=2) as run:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=1e-9)
    run.track(weight=torch.nn.ParameterList([weight]), optimizer=optimizer)
    for _ in run.steps(1_000_000):
        weight.grad = torch.rand(2)
        optimizer.step()
        run.end_step()
