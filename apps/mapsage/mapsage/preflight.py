"""What is asked of the data before a training begins, by `why`, `train` and `unbroken check` alike. Loads no torch."""

from __future__ import annotations

import numpy as np

from mapsage.config import MapSageConfig
from mapsage.dataset.folders import Folder
from mapsage.datasets import build_dataset
from unbroken import Job
from unbroken.errors import DamagedFile


def preflight(job: Job) -> list[str]:
    """Everything a training of this job would refuse before its first step is raised; returns what to warn of."""
    config: MapSageConfig = job.options["config"]
    _require_device(job.options["device"])
    skip_bad = job.options["on_bad"] == "skip"
    for loader in (config.train_dataloader, config.val_dataloader):
        if loader is not None:
            _try_out(build_dataset(loader.datasets, gaps=skip_bad), skip_bad=skip_bad)
    return []


def _require_device(name: str) -> None:
    """Raise UsageError for a device that is none, or is not there; torch is asked only where it has to be."""
    if name not in ("auto", "cpu"):
        from unbroken.train import pick_device

        pick_device(name, deterministic=False)


def _try_out(dataset: Folder, *, skip_bad: bool) -> None:
    """Load the first and the last tile: masks coded otherwise than the config says end the launch, not the night."""
    for index in {0, len(dataset) - 1}:
        try:
            dataset.tile(index, np.random.default_rng(0))
        except DamagedFile:
            if not skip_bad:
                raise
