"""Past batches are learned again out of a buffer that is not tracked."""

from collections import deque

from planted import PLACE, Points, adam, learn, net

from unbroken.train import open_run

with open_run(PLACE, tag="t") as run:
    model, buffer = net(), deque(maxlen=6)
    optimizer = adam(model)
    run.track(model=model, optimizer=optimizer)
    for x, y in run.batches(Points(), batch_size=8, epochs=4):
        buffer.append((x, y))
        run.end_step(loss=learn(model, optimizer, *buffer[0]))
