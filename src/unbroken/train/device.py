"""Choosing where to compute."""

from __future__ import annotations

import torch

from unbroken.errors import UsageError


def pick_device(name: str, *, deterministic: bool) -> torch.device:
    """The device called `name`; "auto" is the GPU where there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else _named(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device", "there is no GPU that torch can use", found=name, do="Use --device cpu.")
    # Operations without a deterministic form (some interpolations on a GPU) warn instead of ending the run.
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.deterministic = deterministic
    return device


def _named(name: str) -> torch.device:
    try:
        return torch.device(name)
    except RuntimeError:
        raise UsageError("--device", "this is no device", expected="auto, cpu, cuda, cuda:1", found=name) from None
