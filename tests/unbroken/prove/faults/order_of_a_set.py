"""A step of preparation writes the vocabulary out of a set: its numbers are others in each process."""

import subprocess
import sys

import torch
from planted import PLACE
from torch import nn

from unbroken.train import open_run

TEXT = [*"abcdefghij", *"hide", *"bead"]
PREPARE = "import sys; print(*set(sys.argv[1:]))"
VOCABULARY = subprocess.check_output([sys.executable, "-S", "-c", PREPARE, *TEXT], text=True).split()
IDS = torch.tensor([VOCABULARY.index(word) for word in TEXT])

with open_run(PLACE, tag="t") as run:
    model = nn.Sequential(nn.Embedding(len(VOCABULARY), 4), nn.Linear(4, len(VOCABULARY)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    run.track(model=model, optimizer=optimizer)
    for _ in run.steps(24):
        at = torch.randint(len(IDS) - 1, (4,))
        loss = nn.functional.cross_entropy(model(IDS[at]), IDS[at + 1])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        run.end_step(loss=loss)
