"""Of two optimizers in a list only the models' own are tracked: none of them is."""

from planted import PLACE, Points, adam, net
from torch import nn

from unbroken.train import open_run

with open_run(PLACE, tag="t") as run:
    body, head = net(), nn.Linear(3, 3)
    optimizers = [adam(body), adam(head)]
    run.track(body=body, head=head)
    for x, y in run.batches(Points(), batch_size=8, epochs=4):
        loss = nn.functional.cross_entropy(head(body(x)), y)
        loss.backward()
        for each in optimizers:
            each.step()
            each.zero_grad()
        run.end_step(loss=loss)
