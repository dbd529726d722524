"""The Mix Transformer (MiT): SegFormer's backbone, without positional encoding (Xie et al., 2021).

Its attention is multi-headed, with keys and values that see a smaller map (section 3.1 there).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from unbroken.errors import ConfigError

LAYER_NORM_EPS = 1e-6
MapSize = tuple[int, int]


class DropPath(nn.Module):
    """Zero the whole input for each sample with probability `rate`, and divide the survivors by `1 - rate`.

    The expected value is unchanged. In evaluation and at rate 0 it is the identity and draws no random
    number.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Any shape whose first axis is the sample, to the same shape."""
        if self.rate == 0.0 or not self.training:
            return x
        keep = 1.0 - self.rate
        shape_N1 = (x.shape[0],) + (1,) * (x.ndim - 1)
        survives_N1 = (keep + torch.rand(shape_N1, dtype=x.dtype, device=x.device)).floor()
        return x.div(keep) * survives_N1

    def extra_repr(self) -> str:
        """The rate, in the printed form of a model."""
        return f"rate={self.rate:.4f}"


def tokens_to_map(tokens_BNC: Tensor, size_HW: MapSize) -> Tensor:
    """Lay tokens out as an image again: BNC to BCHW, N = H * W row by row."""
    batch, _, channels = tokens_BNC.shape
    return tokens_BNC.transpose(1, 2).reshape(batch, channels, *size_HW)


def map_to_tokens(map_BCHW: Tensor) -> Tensor:
    """Read an image row by row: BCHW to BNC, N = H * W."""
    return map_BCHW.flatten(2).transpose(1, 2).contiguous()


class FusedAttention(nn.Module):
    """Scaled dot-product attention holding its parameters as `torch.nn.MultiheadAttention` names them.

    `in_proj_weight` [3C, C] stacks the projections of query, key and value. Initialised as PyTorch does it:
    Xavier-uniform projections, zero bias.
    """

    def __init__(self, *, width: int, heads: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width)) if bias else None
        self.out_proj = nn.Linear(width, width, bias=bias)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, query_BNC: Tensor, memory_BMC: Tensor) -> Tensor:
        """Mix the memory into each query position: BNC and BMC to BNC."""
        width = query_BNC.shape[-1]
        bias = self.in_proj_bias
        query = F.linear(query_BNC, self.in_proj_weight[:width], None if bias is None else bias[:width])
        key_value = F.linear(memory_BMC, self.in_proj_weight[width:], None if bias is None else bias[width:])
        key, value = key_value.chunk(2, dim=-1)
        mixed_BHND = F.scaled_dot_product_attention(
            self._split(query), self._split(key), self._split(value), dropout_p=self.dropout if self.training else 0.0
        )
        out_BNC: Tensor = self.out_proj(mixed_BHND.transpose(1, 2).flatten(2))
        return out_BNC

    def _split(self, x_BNC: Tensor) -> Tensor:
        """BNC to BHND, D = C / heads."""
        batch, positions, width = x_BNC.shape
        return x_BNC.reshape(batch, positions, self.heads, width // self.heads).transpose(1, 2)


class EfficientAttention(nn.Module):
    """A block's attention branch: keys and values come from LN(conv) of the map, `reduction` times smaller.

    `reduction` 1 attends to all positions and has neither `sr` nor `norm`.
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        reduction: int,
        bias: bool,
        attention_dropout: float,
        dropout: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.attn = FusedAttention(width=width, heads=heads, dropout=attention_dropout, bias=bias)
        self.proj_drop = nn.Dropout(dropout)
        self.drop_path = DropPath(drop_path)
        self.reduction = reduction
        if reduction > 1:
            self.sr = nn.Conv2d(width, width, kernel_size=reduction, stride=reduction)
            self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)

    def forward(self, tokens_BNC: Tensor, size_HW: MapSize) -> Tensor:
        """The branch alone, without the residual: BNC to BNC."""
        memory_BMC = tokens_BNC
        if self.reduction > 1:
            memory_BMC = self.norm(map_to_tokens(self.sr(tokens_to_map(tokens_BNC, size_HW))))
        out_BNC: Tensor = self.drop_path(self.proj_drop(self.attn(tokens_BNC, memory_BMC)))
        return out_BNC


class PatchEmbedding(nn.Module):
    """Overlapping patches: a strided convolution, then LayerNorm over channels."""

    def __init__(self, *, in_channels: int, width: int, patch: int, stride: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(in_channels, width, kernel_size=patch, stride=stride, padding=patch // 2)
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)

    def forward(self, image_NCHW: Tensor) -> tuple[Tensor, MapSize]:
        """NCHW to tokens BNC and the size of the map that they come from."""
        map_NCHW = self.projection(image_NCHW)
        size_HW = (int(map_NCHW.shape[2]), int(map_NCHW.shape[3]))
        return self.norm(map_to_tokens(map_NCHW)), size_HW


class MixFeedForward(nn.Module):
    """1x1, depthwise 3x3, exact GELU, 1x1: the 3x3 with its zero padding tells each token where it is."""

    def __init__(self, *, width: int, hidden: int, dropout: float, drop_path: float) -> None:
        super().__init__()
        # The places in this list are part of the parameter names: 0, 1 and 4 hold weights.
        self.layers = nn.Sequential(
            nn.Conv2d(width, hidden, kernel_size=1),
            nn.Conv2d(hidden, hidden, kernel_size=3, padding=1, groups=hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Conv2d(hidden, width, kernel_size=1),
            nn.Dropout(dropout),
        )
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens_BNC: Tensor, size_HW: MapSize) -> Tensor:
        """The branch alone, without the residual: BNC to BNC."""
        out_BNC: Tensor = self.drop_path(map_to_tokens(self.layers(tokens_to_map(tokens_BNC, size_HW))))
        return out_BNC


class TransformerBlock(nn.Module):
    """Attention and feed-forward, each normalised before and added to what came in."""

    def __init__(self, *, attention: EfficientAttention, feed_forward: MixFeedForward, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attn = attention
        self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.ffn = feed_forward

    def forward(self, tokens_BNC: Tensor, size_HW: MapSize) -> Tensor:
        """BNC to BNC."""
        tokens_BNC = tokens_BNC + self.attn(self.norm1(tokens_BNC), size_HW)
        out_BNC: Tensor = tokens_BNC + self.ffn(self.norm2(tokens_BNC), size_HW)
        return out_BNC


class Stage(nn.ModuleList):
    """One resolution: patch embedding (`.0`), blocks (`.1`), final LayerNorm (`.2`)."""

    def __init__(self, embedding: PatchEmbedding, blocks: Sequence[TransformerBlock], *, with_cp: bool) -> None:
        width = embedding.projection.out_channels
        super().__init__([embedding, nn.ModuleList(blocks), nn.LayerNorm(width, eps=LAYER_NORM_EPS)])
        self.with_cp = with_cp

    def forward(self, image_NCHW: Tensor) -> Tensor:
        """NCHW to the next, smaller map NCHW."""
        tokens_BNC, size_HW = self[0](image_NCHW)
        # Under `with_cp` a block's inner activations are not kept but redone in the backward pass. The random state is
        # put back for the second time, so dropout and drop path fall the same way.
        redone = self.with_cp and self.training and torch.is_grad_enabled()
        for block in cast(nn.ModuleList, self[1]):
            if redone:
                through = checkpoint(block, tokens_BNC, size_HW, use_reentrant=False, preserve_rng_state=True)
            else:
                through = block(tokens_BNC, size_HW)
            tokens_BNC = cast(Tensor, through)
        return tokens_to_map(self[2](tokens_BNC), size_HW)


class MixVisionTransformer(nn.Module):
    """Image NCHW to a list of feature maps at strides 4, 8, 16, 32, those named by `out_indices`.

    Stage i has width `embed_dims * num_heads[i]` and `num_layers[i]` blocks. Any input size is allowed from
    which stage i still gets at least `sr_ratios[i]` positions each way; odd sizes follow the convolutions'
    arithmetic. `with_cp` trades time for memory and changes no bit of the result.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        embed_dims: int = 64,
        num_stages: int = 4,
        num_layers: Sequence[int] = (3, 4, 6, 3),
        num_heads: Sequence[int] = (1, 2, 5, 8),
        patch_sizes: Sequence[int] = (7, 3, 3, 3),
        strides: Sequence[int] = (4, 2, 2, 2),
        sr_ratios: Sequence[int] = (8, 4, 2, 1),
        out_indices: Sequence[int] = (0, 1, 2, 3),
        mlp_ratio: int = 4,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        per_stage = (num_layers, num_heads, patch_sizes, strides, sr_ratios)
        if any(len(values) != num_stages for values in per_stage) or max(out_indices) >= num_stages:
            raise ConfigError(
                "model.backbone",
                "not every list has one value per stage, or out_indices names a stage that is not there",
                expected=f"{num_stages} values in num_layers, num_heads, patch_sizes, strides and sr_ratios",
                found=f"{[list(values) for values in per_stage]}, out_indices {list(out_indices)}",
            )
        self.out_indices = tuple(out_indices)
        rates = _drop_path_rates(drop_path_rate, num_layers)
        stages: list[Stage] = []
        for heads, patch, stride, reduction, stage_rates in zip(num_heads, patch_sizes, strides, sr_ratios, rates):
            width = embed_dims * heads
            embedding = PatchEmbedding(in_channels=in_channels, width=width, patch=patch, stride=stride)
            blocks = [
                TransformerBlock(
                    attention=EfficientAttention(
                        width=width,
                        heads=heads,
                        reduction=reduction,
                        bias=qkv_bias,
                        attention_dropout=attn_drop_rate,
                        dropout=drop_rate,
                        drop_path=rate,
                    ),
                    feed_forward=MixFeedForward(
                        width=width, hidden=mlp_ratio * width, dropout=drop_rate, drop_path=rate
                    ),
                    width=width,
                )
                for rate in stage_rates
            ]
            stages.append(Stage(embedding, blocks, with_cp=with_cp))
            in_channels = width
        self.layers = nn.ModuleList(stages)
        self.apply(_initialise)

    def forward(self, image_NCHW: Tensor) -> list[Tensor]:
        """NCHW to the chosen maps, finest first."""
        maps: list[Tensor] = []
        for stage in self.layers:
            image_NCHW = stage(image_NCHW)
            maps.append(image_NCHW)
        return [maps[i] for i in self.out_indices]

    def recompute(self) -> None:
        """Do from now on as under `with_cp`."""
        for stage in self.layers:
            cast(Stage, stage).with_cp = True


def _drop_path_rates(highest: float, num_layers: Sequence[int]) -> list[list[float]]:
    """Rising evenly from 0 to `highest` over all blocks, a list per stage; rounded to float32 as in mmseg."""
    # Said to be on the CPU: a model built on the meta device to learn its shapes has no values to read.
    rates = torch.linspace(0, highest, sum(num_layers), device="cpu").tolist()
    starts = [sum(num_layers[:i]) for i in range(len(num_layers))]
    return [rates[start : start + count] for start, count in zip(starts, num_layers)]


def _initialise(module: nn.Module) -> None:
    """Fresh weights as mmseg draws them; `in_proj_weight` keeps the Xavier values of its own constructor."""
    match module:
        case nn.Linear():
            nn.init.trunc_normal_(module.weight, std=0.02)
        case nn.Conv2d():
            fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
        case _:
            return
    if module.bias is not None:
        nn.init.zeros_(module.bias)
