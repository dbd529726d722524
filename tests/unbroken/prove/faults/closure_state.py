"""A warm-up counts in a closure."""

from planted import PLACE, Points, adam, learn, net

from unbroken.train import open_run


def warm_up():
    calls = [0]

    def factor():
        calls[0] += 1
        return min(1.0, calls[0] / 20)

    return factor


with open_run(PLACE, tag="t") as run:
    model, factor = net(), warm_up()
    optimizer = adam(model)
    run.track(model=model, optimizer=optimizer)
    for x, y in run.batches(Points(), batch_size=8, epochs=4):
        run.end_step(loss=learn(model, optimizer, x, y, scale=factor()))
