"""The schedule is made and stepped, and not tracked."""

import torch
from planted import PLACE, Points, adam, learn, net

from unbroken.train import open_run

with open_run(PLACE, tag="t") as run:
    model = net()
    optimizer = adam(model)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.5)
    run.track(model=model, optimizer=optimizer)
    for x, y in run.batches(Points(), batch_size=8, epochs=4):
        loss = learn(model, optimizer, x, y)
        schedule.step()
        run.end_step(loss=loss)
