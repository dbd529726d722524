"""Data are made before the run is opened, from a generator that nothing has seeded."""

import numpy as np
import torch
from planted import PLACE, Points, adam, learn, net

from unbroken.train import open_run

data = Points()
data.x += torch.from_numpy(np.random.default_rng().normal(size=(48, 6))).float()

with open_run(PLACE, tag="t") as run:
    model = net()
    optimizer = adam(model)
    run.track(model=model, optimizer=optimizer)
    for x, y in run.batches(data, batch_size=8, epochs=4):
        run.end_step(loss=learn(model, optimizer, x, y))
