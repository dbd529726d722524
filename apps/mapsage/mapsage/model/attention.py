"""Multi-head attention whose keys and values see a smaller map (SegFormer, Xie et al., 2021, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mapsage.model.drop_path import DropPath

LAYER_NORM_EPS = 1e-6
MapSize = tuple[int, int]


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
            self._split(query),
            self._split(key),
            self._split(value),
            dropout_p=self.dropout if self.training else 0.0,
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
