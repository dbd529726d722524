"""What is read depends on the worker's process number: it differs with workers only."""

import os

from planted import PLACE, Points, adam, learn, net

from unbroken.train import open_run

TRAINER = os.getpid()


class Numbered(Points):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return (x if os.getpid() == TRAINER else x * (1 + os.getpid() % 101 / 100)), y


if __name__ == "__main__":
    with open_run(PLACE, tag="t") as run:
        model = net()
        optimizer = adam(model)
        run.track(model=model, optimizer=optimizer)
        for x, y in run.batches(Numbered(), batch_size=8, epochs=4, workers=2):
            run.end_step(loss=learn(model, optimizer, x, y))
