"""Digits in the style of pytorch/examples' mnist: train() and test() per epoch, a StepLR after them."""

import argparse

import torch
from torch import nn
from torch.nn import functional

from unbroken.train import open_run

FONT = ["757", "262", "717", "733", "571", "743", "477", "711", "727", "757"]  # three rows of three pixels, in octal


class Digits(torch.utils.data.Dataset):
    """Digits of 9x9 pixels, moved and blurred by noise that is drawn from the global random streams."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        rows = [[int(row) >> shift & 1 for shift in (2, 1, 0)] for row in FONT[index % 10]]
        image = torch.tensor(rows, dtype=torch.float32).repeat_interleave(3, 0).repeat_interleave(3, 1)
        return image.roll(int(torch.randint(-1, 2, ())), 1).unsqueeze(0) + 0.3 * torch.randn(1, 9, 9), index % 10


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.dropout = nn.Conv2d(1, 8, 3), nn.Dropout(0.25)
        self.first, self.second = nn.Linear(8 * 9, 32), nn.Linear(32, 10)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.conv(x)), 2)
        return functional.log_softmax(self.second(self.dropout(functional.relu(self.first(x.flatten(1))))), dim=1)


def train(args, model, run, loader, optimizer, epoch):
    model.train()
    for data, target in run.batches(loader):
        optimizer.zero_grad()
        loss = functional.nll_loss(model(data), target)
        loss.backward()
        optimizer.step()
        run.log(loss=loss)
        if run.batch % args.log_interval == 0:
            print(f"Train epoch {epoch + 1} [{run.batch}/{len(loader)}] loss: {loss.item():.6f}")


@torch.no_grad()
def test(model, loader):
    model.eval()
    loss, correct = 0.0, 0
    for data, target in loader:
        output = model(data)
        loss += functional.nll_loss(output, target, reduction="sum").item()
        correct += int((output.argmax(1) == target).sum())
    size = len(loader.dataset)
    print(f"Test set: average loss {loss / size:.4f}, accuracy {correct}/{size}")
    return {"test_loss": loss / size, "accuracy": correct / size}


def main(args):
    effects = {"out": "free", "workers": "free"}
    with open_run(args.out, tag="digits", config=args, effects=effects, save_every=10) as run:
        train_loader = torch.utils.data.DataLoader(Digits(160), args.batch_size, shuffle=True, num_workers=args.workers)
        test_loader = torch.utils.data.DataLoader(Digits(40), 40)
        model = Net()
        optimizer = torch.optim.Adadelta(model.parameters(), lr=args.lr)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
        run.track(model=model, optimizer=optimizer, scheduler=scheduler)
        for epoch in run.epochs(args.epochs):
            train(args, model, run, train_loader, optimizer, epoch)
            run.record_evaluation(best="accuracy", **test(model, test_loader))
            scheduler.step()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="output")
    for name, number in {"epochs": 3, "batch-size": 16, "log-interval": 5, "workers": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--lr", type=float, default=1.0)
    main(parser.parse_args())
