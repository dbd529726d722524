"""Gradient accumulation: an optimizer step after every 4 batches, and after what is left at the end of an epoch."""

import argparse

import torch
from torch import nn

from unbroken.train import open_run


class Sums(torch.utils.data.Dataset):
    """Six numbers with noise, and their sum."""

    def __len__(self):
        return 176

    def __getitem__(self, index):
        x = torch.randn(6, generator=torch.Generator().manual_seed(index)) + 0.1 * torch.randn(6)
        return x, x.sum(0, keepdim=True)


def main(args):
    effects = {"out": "free", "workers": "free"}
    with open_run(args.out, tag="accumulation", config=args, effects=effects, save_every=5) as run:
        loader = torch.utils.data.DataLoader(Sums(), args.batch_size, shuffle=True, num_workers=args.workers)
        model = nn.Sequential(nn.Linear(6, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        run.track(model=model, optimizer=optimizer)
        for x, y in run.batches(
            loader, epochs=args.epochs, accumulate=args.accumulate
        ):  # says how many steps there are
            loss = nn.functional.mse_loss(model(x), y)
            (loss / args.accumulate).backward()
            run.log(loss=loss)  # recorded: the mean over the batches of a step
            if run.batch % args.accumulate == args.accumulate - 1 or run.at_end_of_epoch:
                optimizer.step()
                optimizer.zero_grad()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="output")
    for name, number in {"epochs": 4, "batch-size": 8, "accumulate": 4, "workers": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    main(parser.parse_args())
