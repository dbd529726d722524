"""The weight of the loss depends on the time."""

import time

from planted import PLACE, Points, adam, learn, net

from unbroken.train import open_run

with open_run(PLACE, tag="t") as run:
    model = net()
    optimizer = adam(model)
    run.track(model=model, optimizer=optimizer)
    for x, y in run.batches(Points(), batch_size=8, epochs=4):
        run.end_step(loss=learn(model, optimizer, x, y, scale=1.0 + time.time() % 1.0))
