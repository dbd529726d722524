"""An ordinary PyTorch loop that survives anything: python examples/plain_loop.py [folder] - kill it, run it again."""

import random
import sys

import torch
from torch import nn

from unbroken.train import open_run


class NoisyLines(torch.utils.data.Dataset):
    """Points of y = sin(3x), each drawn with fresh noise from the global random streams, as most data sets do."""

    def __len__(self):
        return 96

    def __getitem__(self, index):
        x = torch.tensor([index / 48 - 1]) + 0.02 * torch.randn(1)
        return x, torch.sin(3 * x) + random.gauss(0, 0.05)


def main(folder="output", workers=2):
    config = {"width": 64, "lr": 1e-2, "epochs": 20}
    with open_run(folder, tag="plain_loop", config=config, effects={"width": "shape"}, save_every=10) as run:
        model = nn.Sequential(nn.Linear(1, config["width"]), nn.ReLU(), nn.Dropout(0.2), nn.Linear(config["width"], 1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=config["lr"])
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=config["epochs"] * 6)
        run.track(model=model, optimizer=optimizer, scheduler=scheduler)
        for x, y in run.batches(NoisyLines(), batch_size=16, workers=int(workers), epochs=config["epochs"]):
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
            run.log(loss=loss)
    model.eval()
    print(f"after {run.step} steps: f(0.5) = {model(torch.tensor([0.5])).item():.6f}")


if __name__ == "__main__":  # loader workers of Windows and macOS import this file
    main(*sys.argv[1:])
