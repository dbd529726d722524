"""Choosing where to compute, having the memory for it at hand, and the numerical conditions of a run.

Exactness holds while these conditions stay the same. Measured: convolution, attention and scatter steps on a CPU are
bit-identical between processes at a fixed number of compute threads and differ between 1, 2 and 4 threads.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from unbroken.errors import UsageError
from unbroken.launch.host import ask_cublas_for_determinism, processes_said

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
EXACTNESS = ("threads", "cpu_capability", "torch", "device", "deterministic")


def pick_device(name: str, *, deterministic: bool) -> torch.device:
    """Return a device that works here, and compute deterministically on it where that was asked for.

    Args:
        name: As torch has it; "auto" is the GPU where there is one.
        deterministic: Choose algorithms that give the same bits each time; those without such a form warn.
    Raises:
        UsageError: There is no such device, or torch cannot use it.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else _named(name)
    said = processes_said()
    if device.type == "cuda" and name in ("auto", "cuda") and said.size > 1 and torch.cuda.is_available():
        device = torch.device("cuda", said.local_rank % torch.cuda.device_count())  # one for each of this machine
        torch.cuda.set_device(device)  # what says "cuda" without a number means it too
    if device.type == "cuda" and deterministic:
        ask_cublas_for_determinism()
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device", "there is no GPU that torch can use", found=name, do="Use --device cpu.")
    try:
        torch.empty(0, device=device)
    except (
        RuntimeError,
        AssertionError,
        NotImplementedError,
    ) as error:  # a second GPU, or a kind that this torch lacks
        found = f"{name}: {str(error).splitlines()[0][:200]}" if str(error) else name
        raise UsageError("--device", "torch cannot use it here", found=found, do="Use --device cpu.") from error
    # Operations without a deterministic form (some interpolations on a GPU) warn instead of ending the run.
    if deterministic or torch.are_deterministic_algorithms_enabled():  # the call alone loads torch's compiler, a second
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.deterministic = deterministic
    if device.type == "cpu":
        _keep_freed_memory()
    return device


def accelerators_of(tracked: Mapping[str, Any]) -> list[torch.device]:
    """The devices other than the CPU on which tracked networks and tensors lie, each once."""
    found: dict[torch.device, None] = {}
    for part in tracked.values():
        tensors = part.parameters() if isinstance(part, torch.nn.Module) else [part]
        found |= dict.fromkeys(each.device for each in tensors if isinstance(each, torch.Tensor))
    return [device for device in found if device.type not in ("cpu", "meta")]


def exactness_lines(accelerators: Sequence[torch.device], *, deterministic: bool, do: str) -> list[str]:
    """What has to be said where sums are formed in an order that is not always the same; nothing where it is."""
    if not accelerators or deterministic:
        return []
    where = ", ".join(map(str, accelerators))
    return [
        f"not bit for bit on {where}: without deterministic algorithms the same step may differ in its last bits from "
        f"time to time, and so may a resumed training; {do} makes them equal, and is slower"
    ]


def _keep_freed_memory() -> None:
    """Let glibc keep large blocks for the next step: each one asked anew of the kernel costs a page fault per 4 KiB.

    A quarter of a large step on a CPU is spent on them. The process never gives memory back that it once needed.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def _named(name: str) -> torch.device:
    try:
        return torch.device(name)
    except RuntimeError:
        raise UsageError("--device", "this is no device", expected="auto, cpu, cuda, cuda:1", found=name) from None


def current_conditions() -> dict[str, Any]:
    """The conditions of this process."""
    cuda = torch.cuda.is_available()
    return {
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def take_over(recorded: Mapping[str, Any]) -> list[str]:
    """Compute with the run's number of threads again; says every difference that endangers exactness."""
    threads = recorded.get("threads")
    said = []
    if isinstance(threads, int) and threads != torch.get_num_threads():
        said.append(f"compute threads: {torch.get_num_threads()} here, set to the run's {threads}")
        torch.set_num_threads(threads)
    now = current_conditions()
    said += [
        f"{key}: {now[key]} here, {recorded[key]} when the run began - results may differ in the last bits"
        for key in EXACTNESS
        if key in recorded and recorded[key] != now[key]
    ]
    return said
