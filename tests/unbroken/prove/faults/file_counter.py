"""A counter in a file of the script's own goes on from training to training."""

import pathlib

from planted import PLACE, Points, adam, learn, net

from unbroken.train import open_run

COUNTER = pathlib.Path("counter.txt")

with open_run(PLACE, tag="t") as run:
    model = net()
    optimizer = adam(model)
    run.track(model=model, optimizer=optimizer)
    for x, y in run.batches(Points(), batch_size=8, epochs=4):
        count = int(COUNTER.read_text()) + 1 if COUNTER.exists() else 1
        COUNTER.with_suffix(".new").write_text(str(count))
        COUNTER.with_suffix(".new").replace(COUNTER)  # a kill may come between any two instructions
        run.end_step(loss=learn(model, optimizer, x, y, scale=1 + count / 50))
