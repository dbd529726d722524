"""A streaming data set: numbers read in order from shards, each loader worker its own, with a shuffle buffer."""

import argparse
import random

import torch
from torch import nn

from unbroken.train import open_run


class Shards(torch.utils.data.IterableDataset):
    """Samples of 4 shards, as they would be read from files; nobody knows how many there are."""

    def __init__(self, shards=4, size=24, buffer=8):
        self.shards, self.size, self.buffer = shards, size, buffer

    def read(self, shard):
        generator = torch.Generator().manual_seed(shard)
        for _ in range(self.size):
            x = torch.randn(4, generator=generator)
            yield x + 0.05 * torch.randn(4), x.prod().unsqueeze(0)

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        first, every = (worker.id, worker.num_workers) if worker else (0, 1)
        held = []
        for shard in range(first, self.shards, every):
            for sample in self.read(shard):
                held.append(sample)
                if len(held) == self.buffer:
                    yield held.pop(random.randrange(len(held)))
        random.shuffle(held)
        yield from held


def main(args):
    with open_run(args.out, tag="stream", config=args, effects={"out": "free"}, save_every=10) as run:
        loader = torch.utils.data.DataLoader(Shards(), batch_size=args.batch_size, num_workers=args.workers)
        model = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Dropout(0.1), nn.Linear(32, 1))
        optimizer = torch.optim.RMSprop(model.parameters(), lr=3e-3)
        run.track(model=model, optimizer=optimizer)
        for x, y in run.batches(loader, steps=args.steps):  # as many passes as it takes
            loss = nn.functional.huber_loss(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log(loss=loss)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="output")
    for name, number in {"steps": 30, "batch-size": 8, "workers": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    main(parser.parse_args())
