"""The original's network as a tree of modules without arithmetic: its names, their order, their shapes.

Independent of the network here. What it is made of: PyTorch's own layers, spconv 2's submanifold convolution (one
weight: out, kz, ky, kx, in), and the tables that the original keeps as buffers.
"""

from __future__ import annotations

from itertools import pairwise, product

import torch
from torch import nn

from focalsst.model.settings import BevSettings, DetectorSettings, DsvtSettings, HeadSettings


class Parts(nn.Module):
    """Modules by name, in the order in which they are given."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


class SubMConv3d(nn.Module):
    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outside, 3, 3, 3, inside) / (27 * inside) ** 0.5)


def norm(width: int) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(width, eps=1e-3, momentum=0.01)


def point_layer(inside: int, outside: int, *, gates: bool) -> nn.Module:
    attention = {
        "ca_fc": nn.Sequential(
            nn.Linear(outside, outside // 2, bias=False),
            nn.ReLU(),
            nn.Linear(outside // 2, outside, bias=False),
            nn.Sigmoid(),
        ),
        "pa_fc": nn.Sequential(nn.Linear(outside, 1, bias=False), nn.Sigmoid()),
    }
    linear = nn.Linear(inside, outside, bias=False)
    return Parts(linear=linear, norm=norm(outside), relu=nn.ReLU(), **(attention if gates else {}))


def focal_encoder(inside: int, channels: tuple[int, int], outside: int) -> nn.Module:
    first, second = channels
    found = Parts(
        conv_input=nn.Sequential(
            SubMConv3d(inside, first), norm(first), nn.ReLU(), SubMConv3d(first, second), norm(second), nn.ReLU()
        ),
        conv_imp=SubMConv3d(second, 27),
        conv_focal=nn.Sequential(SubMConv3d(second, outside), norm(outside), nn.ReLU()),
        focal_loss_func=nn.Module(),
    )
    offsets = [offset for offset in product((-1, 0, 1), repeat=3) if any(offset)]
    found.register_buffer("kernel_offsets", torch.tensor(offsets, dtype=torch.float32))
    found.register_buffer("inv_idx", torch.tensor([2, 1, 0]))
    return found


def set_attention(dsvt: DsvtSettings) -> nn.Module:
    return Parts(
        self_attn=nn.MultiheadAttention(dsvt.d_model, dsvt.heads, dropout=0.0, batch_first=True),
        linear1=nn.Linear(dsvt.d_model, dsvt.feedforward),
        dropout=nn.Dropout(0.0),
        linear2=nn.Linear(dsvt.feedforward, dsvt.d_model),
        norm1=nn.LayerNorm(dsvt.d_model),
        norm2=nn.LayerNorm(dsvt.d_model),
        dropout1=nn.Identity(),
        dropout2=nn.Identity(),
    )


def dsvt_of(dsvt: DsvtSettings) -> nn.Module:
    width = dsvt.d_model

    def embedding() -> nn.Module:
        layers = nn.Linear(3, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width)
        return Parts(position_embedding_head=nn.Sequential(*layers))

    def layer() -> nn.Module:
        return Parts(win_attn=set_attention(dsvt), norm=nn.LayerNorm(width))

    blocks = range(dsvt.blocks)
    embeddings = nn.ModuleList(nn.ModuleList([embedding(), embedding()]) for _ in blocks)
    return Parts(
        input_layer=Parts(posembed_layers=nn.ModuleList([embeddings])),
        stage_0=nn.ModuleList(Parts(encoder_list=nn.ModuleList([layer(), layer()])) for _ in blocks),
        residual_norm_stage_0=nn.ModuleList(nn.LayerNorm(width) for _ in blocks),
    )


def bev_backbone(bev: BevSettings, width: int) -> nn.Module:
    def norm2d(channels: int) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)

    blocks, deblocks = [], []
    for layers, stride, filters, up_stride, up in zip(
        bev.layer_nums, bev.layer_strides, bev.filters, bev.upsample_strides, bev.upsample_filters
    ):
        found = [nn.ZeroPad2d(1), nn.Conv2d(width, filters, 3, stride, bias=False), norm2d(filters), nn.ReLU()]
        for _ in range(layers):
            found += [nn.Conv2d(filters, filters, 3, padding=1, bias=False), norm2d(filters), nn.ReLU()]
        blocks.append(nn.Sequential(*found))
        transposed = nn.ConvTranspose2d(filters, up, up_stride, up_stride, bias=False)
        deblocks.append(nn.Sequential(transposed, norm2d(up), nn.ReLU()))
        width = filters
    return Parts(blocks=nn.ModuleList(blocks), deblocks=nn.ModuleList(deblocks))


def center_head(head: HeadSettings, width: int) -> nn.Module:
    bias, shared = head.bias_before_norm, head.shared_channels

    def block(inside: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(inside, shared, 3, padding=1, bias=bias), nn.BatchNorm2d(shared), nn.ReLU())

    def branch(channels: int) -> nn.Module:
        last = nn.Conv2d(shared, channels, 3, padding=1)
        return nn.Sequential(*(block(shared) for _ in range(head.branch_convs - 1)), last)

    branches = {"center": 2, "center_z": 1, "dim": 3, "rot": 2, "hm": len(head.class_names)}
    return Parts(
        shared_conv=block(width),
        heads_list=nn.ModuleList([Parts(**{name: branch(channels) for name, channels in branches.items()})]),
        hm_loss_func=nn.Module(),
        reg_loss_func=nn.Module(),
    )


def original_network(settings: DetectorSettings) -> nn.Module:
    """The network that the original builds of these settings, which are those of one that it can build."""
    assert not settings.bev.height_aware
    vfe, dsvt = settings.vfe, settings.dsvt
    widths = [settings.point_features + (6 if vfe.absolute_xyz else 3), *vfe.filters]
    layers = [point_layer(inside, outside, gates=vfe.gates) for inside, outside in pairwise(widths)]
    found = Parts(
        vfe=Parts(pfn_layers=nn.ModuleList(layers)),
        backbone_3d=Parts(
            focal_encoder=focal_encoder(widths[-1], settings.focal.channels, dsvt.d_model), dsvt=dsvt_of(dsvt)
        ),
        map_to_bev_module=nn.Module(),
        backbone_2d=bev_backbone(settings.bev, dsvt.d_model),
        dense_head=center_head(settings.head, sum(settings.bev.upsample_filters)),
    )
    found.register_buffer("global_step", torch.zeros(1, dtype=torch.int64))
    return found
