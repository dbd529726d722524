"""Images in the style of pytorch/examples' imagenet with --dummy: train, validate, a warm-up, the best."""

import argparse

import torch
from torch import nn
from torch.optim.lr_scheduler import LinearLR, SequentialLR, StepLR

from unbroken.train import open_run


class MadeUpImages(torch.utils.data.Dataset):
    """Pictures of noise in which a class has its own tint."""

    def __init__(self, size, augment=False):
        self.size, self.augment = size, augment

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        image = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(index))
        image[index % 4 % 3] += index % 4 - 1.5
        return image.flip(2) if self.augment and torch.rand(()) < 0.5 else image, index % 4


class AverageMeter:
    """The mean of an epoch; tracked, since an epoch may be trained in several sessions."""

    sum, count = 0.0, 0

    def update(self, value, count):
        self.sum, self.count = self.sum + value * count, self.count + count
        return self.sum / self.count

    def state_dict(self):
        return {"sum": self.sum, "count": self.count}

    def load_state_dict(self, state):
        self.sum, self.count = state["sum"], state["count"]


def train(run, loader, model, criterion, optimizer, losses):
    model.train()
    for images, target in run.batches(loader):
        loss = criterion(model(images), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.log(loss=loss, average=losses.update(loss.item(), len(images)))


@torch.no_grad()
def validate(run, loader, model):
    model.eval()
    correct = 0
    for images, target in loader:
        run.poll()  # a signal is obeyed here too
        correct += int((model(images).argmax(1) == target).sum())
    return 100.0 * correct / len(loader.dataset)


def main(args):
    effects = {"out": "free", "workers": "free"}
    with open_run(args.out, tag="images", config=args, effects=effects, save_every_epochs=1) as run:
        images, val_loader = MadeUpImages(128, augment=True), torch.utils.data.DataLoader(MadeUpImages(64), 32)
        train_loader = torch.utils.data.DataLoader(images, args.batch_size, shuffle=True, num_workers=args.workers)
        layers = [nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        model = nn.Sequential(*layers, nn.Linear(8, 4))
        criterion, losses = nn.CrossEntropyLoss(label_smoothing=0.1), AverageMeter()
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
        ramps = [LinearLR(optimizer, 0.1, total_iters=1), StepLR(optimizer, 2)]
        scheduler = SequentialLR(optimizer, ramps, milestones=[1])  # a warm-up, then steps down
        run.track(model=model, optimizer=optimizer, scheduler=scheduler, losses=losses)
        for epoch in run.epochs(args.epochs):
            train(run, train_loader, model, criterion, optimizer, losses)
            accuracy = validate(run, val_loader, model)
            is_best = run.record_evaluation(best="accuracy", accuracy=accuracy, train_loss=losses.sum / losses.count)
            print(f"epoch {epoch + 1}: accuracy {accuracy:.1f}{' (the best so far)' if is_best else ''}")
            losses.sum, losses.count = 0.0, 0  # here, and not in train(): a session may begin in the middle of an epoch
            scheduler.step()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="output")
    for name, number in {"epochs": 3, "batch-size": 16, "workers": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    main(parser.parse_args())
