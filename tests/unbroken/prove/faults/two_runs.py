"""Two short runs, one after the other, in one process."""

from planted import PLACE, Points, adam, learn, net

from unbroken.train import open_run

for tag in ("one", "two"):
    with open_run(PLACE, tag=tag) as run:
        model = net()
        optimizer = adam(model)
        run.track(model=model, optimizer=optimizer)
        for x, y in run.batches(Points(), batch_size=8, epochs=1):
            run.end_step(loss=learn(model, optimizer, x, y))
