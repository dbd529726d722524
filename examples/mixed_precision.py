"""Mixed precision with a GradScaler, an averaged model (EMA) and a OneCycleLR that is stepped after each batch."""

import argparse

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from unbroken.train import open_run


def spirals(size, seed):
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(size) % 2
    turn = 4.0 * torch.rand(size, generator=generator)
    angle = turn + 3.1416 * label
    points = turn.unsqueeze(1) * torch.stack([angle.cos(), angle.sin()], 1) / 4
    return torch.utils.data.TensorDataset(points, label)


@torch.no_grad()
def accuracy(model, dataset):
    points, label = dataset.tensors
    return (model.eval()(points).argmax(1) == label).float().mean().item()


def main(args):
    effects = {"out": "free", "workers": "free"}
    with open_run(args.out, tag="mixed_precision", config=args, effects=effects, save_every=10) as run:
        train_set, test_set = spirals(160, seed=1), spirals(80, seed=2)
        loader = torch.utils.data.DataLoader(train_set, args.batch_size, shuffle=True, num_workers=args.workers)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = nn.Sequential(nn.Linear(2, 64), nn.GELU(), nn.Dropout(0.1), nn.Linear(64, 2)).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
        steps = args.epochs * len(loader)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=args.lr, total_steps=steps)
        scaler = torch.amp.GradScaler(device, growth_interval=8)
        ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
        run.track(model=model, optimizer=optimizer, scheduler=scheduler, scaler=scaler, ema=ema)
        for points, label in run.batches(loader, epochs=args.epochs):
            model.train()
            with torch.autocast(device, dtype=torch.float16):
                loss = nn.functional.cross_entropy(model(points.to(device)), label.to(device))
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)  # leaves the optimizer's step out where a gradient is infinite
            scaler.update()
            scheduler.step()
            ema.update_parameters(model)
            run.end_step(loss=loss, scale=scaler.get_scale())  # each batch is a step, whatever the scaler did
            if run.at_end_of_epoch:
                run.record_evaluation(best="accuracy", accuracy=accuracy(ema, test_set))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="output")
    for name, number in {"epochs": 3, "batch-size": 16, "workers": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--lr", type=float, default=0.02)
    main(parser.parse_args())
