"""The batch of the coming step is drawn in this one, from an iterator of the script's own."""

import torch
from planted import PLACE, Points, adam, learn, net

from unbroken.train import open_run


def endless(loader):
    while True:
        yield from loader


with open_run(PLACE, tag="t") as run:
    model = net()
    optimizer = adam(model)
    run.track(model=model, optimizer=optimizer)
    batches = endless(torch.utils.data.DataLoader(Points(noise=0), batch_size=8))
    x, y = next(batches)
    for _ in run.steps(24):
        loss = learn(model, optimizer, x, y)
        x, y = next(batches)
        run.end_step(loss=loss)
