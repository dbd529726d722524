"""A compiled model: torch.compile may be there in one session and not in the next (--backend none)."""

import argparse

import torch
from torch import nn

from unbroken.train import open_run


def main(args):
    effects = {"out": "free", "workers": "free", "backend": "free"}
    with open_run(args.out, tag="compiled", config=args, effects=effects, save_every=10) as run:
        x = torch.linspace(-1, 1, 120).unsqueeze(1)
        loader = torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(x, torch.sin(3 * x)), 12, shuffle=True, num_workers=args.workers
        )
        model = nn.Sequential(nn.Linear(1, 32), nn.GELU(), nn.Dropout(0.1), nn.Linear(32, 1))
        if args.backend != "none":
            model = torch.compile(model, backend=args.backend)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=args.epochs * len(loader))
        run.track(model=model, optimizer=optimizer, scheduler=scheduler)  # saved under the names it has uncompiled
        for x, y in run.batches(loader, epochs=args.epochs):
            loss = nn.functional.mse_loss(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            run.log(loss=loss)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="output")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--backend", default="inductor", help="of torch.compile: inductor, aot_eager, eager, none")
    main(parser.parse_args())
