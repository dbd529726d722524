"""A running digest, written in C, holds a state that nothing can look at."""

import hashlib

from planted import PLACE, Points, adam, learn, net

from unbroken.train import open_run

with open_run(PLACE, tag="t") as run:
    model, digest = net(), hashlib.sha256()
    optimizer = adam(model)
    run.track(model=model, optimizer=optimizer)
    for x, y in run.batches(Points(), batch_size=8, epochs=4):
        digest.update(b"step")
        run.end_step(loss=learn(model, optimizer, x, y, scale=1 + digest.digest()[0] / 256))
