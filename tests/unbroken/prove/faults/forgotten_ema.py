"""An average of the weights pulls on the loss, and is not tracked."""

import copy

import torch
from planted import PLACE, Points, adam, net
from torch import nn

from unbroken.train import open_run

with open_run(PLACE, tag="t") as run:
    model = net()
    teacher = copy.deepcopy(model)
    optimizer = adam(model)
    run.track(model=model, optimizer=optimizer)
    for x, y in run.batches(Points(), batch_size=8, epochs=4):
        with torch.no_grad():
            target = teacher(x)
        loss = nn.functional.cross_entropy(model(x), y) + (model(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for slow, fast in zip(teacher.parameters(), model.parameters()):
                slow.lerp_(fast, 0.1)
        run.end_step(loss=loss)
