"""The data set keeps what it drew for an item: which worker has it in a later epoch depends on how many there are."""

from planted import PLACE, Points, adam, learn, net

from unbroken.train import open_run


class Kept(Points):
    def __init__(self):
        super().__init__(16)
        self.kept = {}

    def __getitem__(self, index):
        if index not in self.kept:
            self.kept[index] = super().__getitem__(index)
        return self.kept[index]


if __name__ == "__main__":
    with open_run(PLACE, tag="t") as run:
        model = net()
        optimizer = adam(model)
        run.track(model=model, optimizer=optimizer)
        for x, y in run.batches(Kept(), batch_size=8, epochs=4, workers=2):
            run.end_step(loss=learn(model, optimizer, x, y))
