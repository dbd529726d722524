"""What is done at every third batch goes by `enumerate`, which begins at 0 again in the middle of an epoch."""

from planted import PLACE, Points, adam, learn, net

from unbroken.train import open_run

with open_run(PLACE, tag="t") as run:
    model, data = net(), Points(96)
    optimizer = adam(model)
    run.track(model=model, optimizer=optimizer)
    for _epoch in run.epochs(2):
        for index, (x, y) in enumerate(run.batches(data, batch_size=8)):
            run.end_step(loss=learn(model, optimizer, x, y, scale=1.0 if index % 3 else 2.0))
