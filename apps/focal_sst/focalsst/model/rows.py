"""Arithmetic on feature rows: reduction by group, and a batch normalisation that survives a single row."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def group_max(x_NC: Tensor, group_N: Tensor, groups: int) -> Tensor:
    """The largest value of each channel in each group, NC to GC; a group without rows is 0."""
    index_NC = group_N[:, None].expand(-1, x_NC.shape[1])
    return x_NC.new_zeros(groups, x_NC.shape[1]).scatter_reduce(0, index_NC, x_NC, "amax", include_self=False)


def group_sum(x_NC: Tensor, group_N: Tensor, groups: int) -> Tensor:
    """The sum of the rows of each group, NC to GC."""
    return x_NC.new_zeros(groups, x_NC.shape[1]).index_add(0, group_N, x_NC)


class RowNorm(nn.BatchNorm1d):
    """Batch normalisation of rows NC; fewer than two rows have no variance and use the running statistics."""

    def forward(self, input: Tensor) -> Tensor:
        """NC to NC."""
        if len(input) > 1 or not self.training:
            return super().forward(input)
        mean, variance = cast(Tensor, self.running_mean), cast(Tensor, self.running_var)
        return F.batch_norm(input, mean, variance, self.weight, self.bias, training=False, eps=self.eps)


def normalise_counted(norm: nn.BatchNorm1d, x_UC: Tensor, count_U: Tensor) -> Tensor:
    """What `RowNorm` makes of rows of which row u is there `count_U[u]` times, each computed once: UC to UC."""
    x_UC, rows = x_UC.to(norm.weight.dtype), int(count_U.sum())
    running_mean, running_variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    if rows < 2 or not norm.training:
        mean_C, variance_C = running_mean, running_variance
    else:
        share_U1 = (count_U.to(x_UC.dtype) / rows)[:, None]
        mean_C = (share_U1 * x_UC).sum(dim=0)
        variance_C = (share_U1 * (x_UC - mean_C) ** 2).sum(dim=0)
        momentum = cast(float, norm.momentum)
        running_mean.lerp_(mean_C.detach(), momentum)
        running_variance.lerp_(variance_C.detach() * rows / (rows - 1), momentum)
        cast(Tensor, norm.num_batches_tracked).add_(1)
    return (x_UC - mean_C) * (norm.weight * torch.rsqrt(variance_C + norm.eps)) + norm.bias
