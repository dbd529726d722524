"""What the scripts in `faults` share: a little data, a little model. Each script has one fault: its first line.

The scripts are not part of any package: they find this file beside their folder, as a user's script finds its modules.
"""

import torch
from torch import nn

PLACE = "output"  # never made: a proof trains elsewhere


class Points(torch.utils.data.Dataset):
    def __init__(self, size=48, noise=0.1):
        generator = torch.Generator().manual_seed(5)
        self.x = torch.randn(size, 6, generator=generator)
        self.y = self.x[:, :3].argmax(1)
        self.noise = noise

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index] + self.noise * torch.randn(6), self.y[index]


def net():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


def adam(model):
    return torch.optim.AdamW(model.parameters(), lr=0.05)


def learn(model, optimizer, x, y, scale=1.0):
    loss = scale * nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss
