"""A GAN in the style of DCGAN: two networks, two optimizers, and pictures of a fixed noise on the way."""

import argparse

import torch
from torch import nn

from unbroken.train import open_run


class Rings(torch.utils.data.Dataset):
    """Pictures of 8x8 pixels with a ring of a random size."""

    def __len__(self):
        return 128

    def __getitem__(self, index):
        row, column = torch.meshgrid(torch.arange(8) - 3.5, torch.arange(8) - 3.5, indexing="ij")
        radius = 2.0 + torch.rand(())
        return torch.tanh(3.0 - 3.0 * ((row**2 + column**2).sqrt() - radius).abs()).unsqueeze(0)


def weights_init(module):
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


def save_picture(images, path):
    """One row of grey pictures, as a file that needs no library."""
    rows = ((images[:, 0] + 1) * 127.5).byte().permute(1, 0, 2).flatten(1)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"P5 %d %d 255\n" % (rows.shape[1], rows.shape[0]) + bytes(rows.flatten().tolist()))


def main(args):
    effects = {"out": "free", "workers": "free"}
    with open_run(args.out, tag="gan", config=args, effects=effects, save_every=10) as run:
        loader = torch.utils.data.DataLoader(Rings(), args.batch_size, shuffle=True, num_workers=args.workers)
        grow = [nn.ConvTranspose2d(args.nz, 16, 4), nn.BatchNorm2d(16), nn.ReLU(), nn.ConvTranspose2d(16, 1, 4, 2, 1)]
        shrink = [nn.Conv2d(1, 16, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 1, 4), nn.Flatten()]
        net_g = nn.Sequential(*grow, nn.Tanh()).apply(weights_init)
        net_d = nn.Sequential(*shrink).apply(weights_init)
        optimizer_g = torch.optim.Adam(net_g.parameters(), lr=args.lr, betas=(0.5, 0.999))
        optimizer_d = torch.optim.Adam(net_d.parameters(), lr=args.lr, betas=(0.5, 0.999))
        run.track(net_g=net_g, net_d=net_d, optimizer_g=optimizer_g, optimizer_d=optimizer_d)
        criterion = nn.BCEWithLogitsLoss()
        fixed_noise = torch.randn(8, args.nz, 1, 1)  # open_run has seeded the streams: the same in each session
        for real in run.batches(loader, epochs=args.epochs):
            ones, zeros = torch.ones(len(real), 1), torch.zeros(len(real), 1)
            net_d.zero_grad()  # the discriminator: real pictures, then pictures of the generator
            loss_real = criterion(net_d(real), ones)
            loss_real.backward()
            fake = net_g(torch.randn(len(real), args.nz, 1, 1))
            loss_fake = criterion(net_d(fake.detach()), zeros)
            loss_fake.backward()
            optimizer_d.step()
            net_g.zero_grad()  # the generator
            loss_g = criterion(net_d(fake), ones)
            loss_g.backward()
            optimizer_g.step()
            run.log(loss_d=loss_real + loss_fake, loss_g=loss_g)
            if run.batch % 4 == 0:  # it moves the running means of batch norm: at the same batches in every session
                with torch.no_grad():
                    name = f"epoch_{run.epoch + 1}_batch_{run.batch}.pgm"
                    save_picture(net_g(fixed_noise), run.directory / "pictures" / name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="output")
    for name, number in {"epochs": 3, "batch-size": 16, "nz": 8, "workers": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--lr", type=float, default=2e-3)
    main(parser.parse_args())
