"""A temperature that is trained is a leaf tensor in a tracked dict, and the optimizer holds the tensor itself."""

import torch
from planted import PLACE, Points, net
from torch import nn

from unbroken.train import open_run

with open_run(PLACE, tag="t") as run:
    model, log_alpha = net(), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.AdamW([*model.parameters(), log_alpha], lr=0.05)
    run.track(model=model, optimizer=optimizer, alpha={"log_alpha": log_alpha})
    for x, y in run.batches(Points(), batch_size=8, epochs=4):
        loss = nn.functional.cross_entropy(model(x) * log_alpha.exp(), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        run.end_step(loss=loss)
