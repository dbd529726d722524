"""An iterator of the standard library, written in C, holds a place that nothing can look at."""

import itertools

from planted import PLACE, Points, adam, learn, net

from unbroken.train import open_run

with open_run(PLACE, tag="t") as run:
    model, scales = net(), itertools.cycle([1.0, 2.0, 0.5, 3.0, 0.25])
    optimizer = adam(model)
    run.track(model=model, optimizer=optimizer)
    for x, y in run.batches(Points(), batch_size=8, epochs=4):
        run.end_step(loss=learn(model, optimizer, x, y, scale=next(scales)))
