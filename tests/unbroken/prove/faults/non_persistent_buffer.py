"""A running mean lives in a buffer that state_dict leaves out."""

import torch
from planted import PLACE, Points, adam, learn, net
from torch import nn

from unbroken.train import open_run


class Centred(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(6), persistent=False)
        self.net = net()

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return self.net(x - self.mean)


with open_run(PLACE, tag="t") as run:
    model = Centred()
    optimizer = adam(model)
    run.track(model=model, optimizer=optimizer)
    for x, y in run.batches(Points(), batch_size=8, epochs=4):
        run.end_step(loss=learn(model, optimizer, x + 1, y))
