"""An optimizer of the user's own keeps its velocity in attributes of the weights, where state_dict does not see it."""

import torch
from planted import PLACE, Points, learn, net

from unbroken.train import open_run


class Heavy(torch.optim.Optimizer):
    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.05})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for weight in group["params"]:
                old = getattr(weight, "velocity", torch.zeros_like(weight))
                weight.velocity = 0.9 * old + weight.grad
                weight -= group["lr"] * weight.velocity


with open_run(PLACE, tag="t") as run:
    model = net()
    optimizer = Heavy(model.parameters())
    run.track(model=model, optimizer=optimizer)
    for x, y in run.batches(Points(), batch_size=8, epochs=4):
        run.end_step(loss=learn(model, optimizer, x, y))
