"""Nothing is wrong here."""

from planted import PLACE, Points, adam, learn, net

from unbroken.train import open_run

if __name__ == "__main__":
    with open_run(PLACE, tag="t") as run:
        model = net()
        optimizer = adam(model)
        run.track(model=model, optimizer=optimizer)
        for x, y in run.batches(Points(), batch_size=8, epochs=4, workers=1):
            run.end_step(loss=learn(model, optimizer, x, y))
