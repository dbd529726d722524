"""The data set grows harder with every sample that this worker has read: how many that are depends on the workers."""

from planted import PLACE, Points, adam, learn, net

from unbroken.train import open_run


class Harder(Points):
    read = 0

    def __getitem__(self, index):
        self.read += 1
        x, y = super().__getitem__(index)
        return x * (1 + self.read / 20), y


if __name__ == "__main__":
    with open_run(PLACE, tag="t") as run:
        model = net()
        optimizer = adam(model)
        run.track(model=model, optimizer=optimizer)
        for x, y in run.batches(Harder(), batch_size=8, epochs=4, workers=2):
            run.end_step(loss=learn(model, optimizer, x, y))
