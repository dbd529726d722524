"""A tracked thing gives its state and cannot take it back: the first session is accepted, the next one is not."""

from planted import PLACE, Points, adam, learn, net

from unbroken.train import open_run


class OneWay:
    def state_dict(self):
        return {"seen": 1}

    def load_state_dict(self, state):
        raise ValueError("this buffer cannot be filled from a state")


with open_run(PLACE, tag="t") as run:
    model = net()
    optimizer = adam(model)
    run.track(model=model, optimizer=optimizer, buffer=OneWay())
    for x, y in run.batches(Points(), batch_size=8, epochs=4):
        run.end_step(loss=learn(model, optimizer, x, y))
