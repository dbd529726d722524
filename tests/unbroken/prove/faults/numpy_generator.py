"""A numpy generator in plain view mixes the batches, and is not tracked."""

import numpy as np
from planted import PLACE, Points, adam, learn, net

from unbroken.train import open_run

with open_run(PLACE, tag="t") as run:
    model, chance = net(), np.random.RandomState(7)
    optimizer = adam(model)
    run.track(model=model, optimizer=optimizer)
    for x, y in run.batches(Points(), batch_size=8, epochs=4):
        run.end_step(loss=learn(model, optimizer, x * float(chance.uniform(0.8, 1.2)), y))
