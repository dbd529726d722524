"""A transform draws from what the operating system calls chance, which no seed reaches."""

import random

from planted import PLACE, Points, adam, learn, net

from unbroken.train import open_run


class Shaken(Points):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x * random.SystemRandom().uniform(0.8, 1.2), y


with open_run(PLACE, tag="t") as run:
    model = net()
    optimizer = adam(model)
    run.track(model=model, optimizer=optimizer)
    for x, y in run.batches(Shaken(), batch_size=8, epochs=4):
        run.end_step(loss=learn(model, optimizer, x, y))
