"""The best loss so far, from which the patience is counted, lives in an object of the script's."""

from planted import PLACE, Points, adam, learn, net

from unbroken.train import open_run


class Patience:
    def __init__(self):
        self.best, self.bad = float("inf"), 0

    def factor(self, loss):
        self.bad = 0 if loss < self.best else self.bad + 1
        self.best = min(self.best, loss)
        return 0.5**self.bad


with open_run(PLACE, tag="t") as run:
    model, patience, factor = net(), Patience(), 1.0
    optimizer = adam(model)
    run.track(model=model, optimizer=optimizer)
    for x, y in run.batches(Points(), batch_size=8, epochs=4):
        loss = learn(model, optimizer, x, y, scale=factor)
        factor = patience.factor(float(loss))
        run.end_step(loss=loss)
