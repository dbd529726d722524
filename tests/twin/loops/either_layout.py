"""A loop of four epochs whose files are named by iterations or by epochs; it dies by SIGKILL where it is told to.

python either_layout.py FOLDER TAG iterations|epochs [STEP [SEED]]
"""

import os
import signal
import sys

import torch
from torch import nn

from unbroken.run import EPOCHS, ITERATIONS
from unbroken.train import open_run

LAYOUTS = {"iterations": ITERATIONS, "epochs": EPOCHS}


class Lines(torch.utils.data.Dataset):
    def __len__(self):
        return 24

    def __getitem__(self, index):
        x = torch.tensor([index / 12 - 1]) + 0.02 * torch.randn(1)
        return x, torch.sin(3 * x)


def main(folder, tag, layout, die_at=0, seed=0):
    saves = {"save_every": 4, "save_every_epochs": 1}
    with open_run(folder, tag=tag, seed=seed, layout=LAYOUTS[layout], **saves) as run:
        model = nn.Sequential(nn.Linear(1, 16), nn.Dropout(0.2), nn.Linear(16, 1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        run.track(model=model, optimizer=optimizer)
        for x, y in run.batches(Lines(), batch_size=4, workers=0, epochs=4):
            loss = nn.functional.mse_loss(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.end_step(loss=loss)
            if run.step == die_at:
                run.wait_for_saves()  # they are written, and recorded, beside the training
                os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    folder, tag, layout, *numbers = sys.argv[1:]
    main(folder, tag, layout, *map(int, numbers))
