"""A script in the style of many public ones: train() and test() per epoch, a scheduler per epoch, the best accuracy."""

import sys

import torch
from torch import nn

from unbroken.train import open_run


class Blobs(torch.utils.data.Dataset):
    def __init__(self, size, seed):
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(0, 3, (size,), generator=generator)
        self.points = torch.randn(size, 2, generator=generator) + 2.0 * nn.functional.one_hot(self.labels, 3)[:, :2]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.points[index] + 0.1 * torch.randn(2), self.labels[index]


def train(run, model, optimizer, ema, dataset):
    model.train()
    for index, (points, labels) in enumerate(run.batches(dataset, batch_size=8, workers=int(sys.argv[2]))):
        loss = nn.functional.cross_entropy(model(points), labels) / 2
        loss.backward()
        if index % 2 == 1:  # accumulation over two micro-batches; 25 batches leave one over at each epoch's end
            optimizer.step()
            optimizer.zero_grad()
            ema.update_parameters(model)
            run.end_step(loss=2 * loss)


def test(model, loader):
    model.eval()
    with torch.no_grad():
        right = sum(int((model(points).argmax(1) == labels).sum()) for points, labels in loader)
    return 100.0 * right / len(loader.dataset)


def main():
    with open_run(sys.argv[1], tag="by_epochs", seed=4, save_every=7) as run:
        model = nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.7)
        ema = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
        history = {"accuracies": []}
        run.track(model=model, optimizer=optimizer, scheduler=scheduler, ema=ema, history=history)
        loader = torch.utils.data.DataLoader(Blobs(40, seed=2), batch_size=20, shuffle=True)
        for _epoch in run.epochs(6):
            train(run, model, optimizer, ema, DATA)
            accuracy = test(model, loader)
            history["accuracies"].append(accuracy)
            run.record_evaluation(best="accuracy", accuracy=accuracy)
            scheduler.step()
    print("accuracies", history["accuracies"])


DATA = Blobs(200, seed=1)

if __name__ == "__main__":
    main()
