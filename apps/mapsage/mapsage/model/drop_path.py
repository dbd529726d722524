"""Stochastic depth: during training a residual branch is left out for some samples (Huang et al., 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
