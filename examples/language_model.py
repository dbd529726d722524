"""A small language model in the style of nanoGPT: python examples/language_model.py - kill it, run it again."""

import argparse
import math

import torch
from torch import nn
from torch.nn import functional

from unbroken.train import open_run

TEXT = 40 * "the sea took the rope, and the rope took the anchor, and the anchor took its time. "


class Block(nn.Module):
    def __init__(self, width, heads, dropout):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x_BTC):
        qkv_3BHTC = self.qkv(self.norm_1(x_BTC)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(*qkv_3BHTC, dropout_p=dropout, is_causal=True)
        x_BTC = x_BTC + self.out(mixed.transpose(1, 2).flatten(2))
        return x_BTC + self.mlp(self.norm_2(x_BTC))


class Model(nn.Module):
    def __init__(self, vocabulary, context, width=32, layers=2, heads=4, dropout=0.1):
        super().__init__()
        self.token, self.place = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads, dropout) for _ in range(layers)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, vocabulary))

    def forward(self, x_BT, y_BT):
        x = self.token(x_BT) + self.place(torch.arange(x_BT.shape[1]))
        return functional.cross_entropy(self.head(self.blocks(x)).flatten(0, 1), y_BT.flatten())


def learning_rate(step, args):  # a linear warm-up, then a cosine down to a tenth
    if step < args.warmup:
        return args.lr * (step + 1) / args.warmup
    return args.lr * (0.55 + 0.45 * math.cos(math.pi * (step - args.warmup) / (args.steps - args.warmup)))


def main(args):
    letters = sorted(set(TEXT))
    data = torch.tensor([letters.index(letter) for letter in TEXT])
    parts = {"train": data[: len(data) * 9 // 10], "val": data[len(data) * 9 // 10 :]}

    def get_batch(part):
        starts = torch.randint(len(parts[part]) - args.context, (args.batch_size, 1)) + torch.arange(args.context)
        return parts[part][starts], parts[part][starts + 1]

    @torch.no_grad()
    def validation_loss(model):
        losses = [model.eval()(*get_batch("val")).item() for _ in range(4)]
        model.train()
        return sum(losses) / len(losses)

    with open_run(args.out, tag="language_model", config=args, effects={"out": "free"}, save_every=10) as run:
        model = Model(len(letters), args.context)
        optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
        run.track(model=model, optimizer=optimizer)
        for step in run.steps(args.steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, args)
            for _ in range(args.accumulate):
                loss = model(*get_batch("train"))  # drawn in the step: from streams that are seeded for it
                (loss / args.accumulate).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            run.log(loss=loss)
            if run.evaluation_due(every=10):
                run.record_evaluation(best="val_loss", larger=False, val_loss=validation_loss(model))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="output")
    parser.add_argument("--steps", type=int, default=30)
    for name, number in {"batch-size": 8, "context": 32, "accumulate": 2, "warmup": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--lr", type=float, default=3e-3)
    main(parser.parse_args())
