"""Arithmetic on feature rows: reduction by group, and a batch normalisation that survives a single row."""

from __future__ import annotations

from typing import cast

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
