"""An annealing goes by a counter in a local variable."""

from planted import PLACE, Points, adam, learn, net

from unbroken.train import open_run


def main():
    with open_run(PLACE, tag="t") as run:
        model, seen = net(), 0
        optimizer = adam(model)
        run.track(model=model, optimizer=optimizer)
        for x, y in run.batches(Points(), batch_size=8, epochs=4):
            seen += 1  # noqa: SIM113 - as people write it
            run.end_step(loss=learn(model, optimizer, x, y, scale=seen / 24))


main()
