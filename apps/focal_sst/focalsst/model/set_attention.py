"""One layer and one block of DSVT: attention within sets, then a feed-forward, with the original's three norms."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from focalsst.model.settings import DsvtSettings
from focalsst.model.windows import Sets


class SelfAttention(nn.Module):
    """Multi-head attention within sets; parameters are named as in `torch.nn.MultiheadAttention`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x_VC: Tensor, position_VC: Tensor, sets: Sets) -> Tensor:
        """VC to VC. Positions enter queries and keys, not values.

        The projections come before the gathering: a voxel that fills two slots is projected once.
        """
        width = x_VC.shape[1]
        weight, bias = self.in_proj_weight, self.in_proj_bias
        query_key_V2C = F.linear(x_VC + position_VC, weight[: 2 * width], bias[: 2 * width])
        value_VC = F.linear(x_VC, weight[2 * width :], bias[2 * width :])
        query, key, value = (self._gather(part, sets) for part in (*query_key_V2C.chunk(2, dim=1), value_VC))
        mixed_THKD = F.scaled_dot_product_attention(query, key, value, attn_mask=~sets.repeated_TK[:, None, None, :])
        mixed_NC = mixed_THKD.transpose(1, 2).flatten(2).flatten(0, 1).index_select(0, sets.slot_V)
        out_VC: Tensor = self.out_proj(mixed_NC)
        return out_VC

    def _gather(self, x_VC: Tensor, sets: Sets) -> Tensor:
        """VC to THKD, D = C / H."""
        in_slots = x_VC.index_select(0, sets.voxel_TK.flatten())
        return in_slots.view(*sets.voxel_TK.shape, self.heads, x_VC.shape[1] // self.heads).transpose(1, 2)


class SetAttention(nn.Module):
    """Attention and feed-forward, each added to what came in and normalised after."""

    def __init__(self, settings: DsvtSettings) -> None:
        super().__init__()
        self.self_attn = SelfAttention(settings.d_model, settings.heads)
        self.linear1 = nn.Linear(settings.d_model, settings.feedforward)
        self.linear2 = nn.Linear(settings.feedforward, settings.d_model)
        self.norm1 = nn.LayerNorm(settings.d_model)
        self.norm2 = nn.LayerNorm(settings.d_model)

    def forward(self, x_VC: Tensor, position_VC: Tensor, sets: Sets) -> Tensor:
        """VC to VC."""
        x_VC = self.norm1(x_VC + self.self_attn(x_VC, position_VC, sets))
        out_VC: Tensor = self.norm2(x_VC + self.linear2(F.gelu(self.linear1(x_VC))))
        return out_VC


class EncoderLayer(nn.Module):
    """Set attention with one more residual and norm around it."""

    def __init__(self, settings: DsvtSettings) -> None:
        super().__init__()
        self.win_attn = SetAttention(settings)
        self.norm = nn.LayerNorm(settings.d_model)

    def forward(self, x_VC: Tensor, position_VC: Tensor, sets: Sets) -> Tensor:
        """VC to VC."""
        out_VC: Tensor = self.norm(self.win_attn(x_VC, position_VC, sets) + x_VC)
        return out_VC


class Block(nn.Module):
    """Two layers on the same windows, whose sets follow the two orderings."""

    def __init__(self, settings: DsvtSettings) -> None:
        super().__init__()
        self.encoder_list = nn.ModuleList(EncoderLayer(settings) for _ in range(2))

    def forward(self, x_VC: Tensor, positions: tuple[Tensor, Tensor], sets: tuple[Sets, Sets]) -> Tensor:
        """VC to VC."""
        for layer, position_VC, sets_of_layer in zip(self.encoder_list, positions, sets):
            x_VC = layer(x_VC, position_VC, sets_of_layer)
        return x_VC
