"""The numerical conditions of a run: exactness holds while these stay the same.

Measured: convolution, attention and scatter steps on a CPU are bit-identical between processes at a fixed number of
compute threads and differ between 1, 2 and 4 threads.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

EXACTNESS = ("threads", "cpu_capability", "torch", "device", "deterministic")


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
