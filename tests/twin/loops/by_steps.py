"""A script that draws its own batches from the global random streams, as language-model scripts do; two optimizers."""

import random
import sys

import numpy as np
import torch
from torch import nn

from unbroken.train import open_run

TEXT = torch.randint(0, 11, (500,), generator=torch.Generator().manual_seed(0))


def get_batch():
    starts = torch.randint(len(TEXT) - 9, (4,))
    noise = random.random() * 1e-3 + np.random.rand() * 1e-3
    return torch.stack([TEXT[i : i + 8] for i in starts]), torch.stack([TEXT[i + 1 : i + 9] for i in starts]), noise


with open_run(sys.argv[1], tag="by_steps", seed=9, save_every=6) as run:
    embed, head = nn.Embedding(11, 8), nn.Sequential(nn.Dropout(0.2), nn.Linear(8, 11))
    first, second = torch.optim.AdamW(embed.parameters(), lr=0.01), torch.optim.SGD(head.parameters(), lr=0.1)
    run.track(embed=embed, head=head, first=first, second=second)
    for step in run.steps(60):
        x, y, noise = get_batch()
        loss = nn.functional.cross_entropy(head(embed(x)).flatten(0, 1), y.flatten()) + noise
        loss.backward()
        for optimizer in (first, second):
            optimizer.step()
            optimizer.zero_grad()
        run.end_step(loss=loss)
        if step % 10 == 9:
            torch.rand(3)  # sampling some text must not shift what follows
print("done", run.step)
