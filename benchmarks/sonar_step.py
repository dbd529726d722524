"""Seconds of a training step of the sonar detector, part by part: python benchmarks/sonar_step.py

Trains `micro` on small sample frames and `focal_sst` on frames of the published size, with 1 and with 4 threads in turn
(`--threads`; where fewer cores are idle, more threads are many times slower than one). A part of the backward pass ends
when the gradient of what the part was given is known. `--profile` names the operators that cost most.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from focalsst.config import SonarConfig, detector_settings
from focalsst.dataset.folder import Batch, SonarFolder, collate
from focalsst.model.bev import BevMap
from focalsst.model.center_head import HeadMaps
from focalsst.model.detector import build_detector
from focalsst.model.settings import DetectorSettings
from focalsst.model.voxels import SparseVoxels
from focalsst.optimizer import build_adam
from focalsst.samples import write_sample_data
from unbroken.config import read_config, validate
from unbroken.train import pick_device

CONFIGS = Path(__file__).parents[1] / "apps/focal_sst/cfgs/sonar_models"

THREADS = [1, 4]
LOADING, LOSSES, FIRST, OPTIMIZER = "loading of the batch", "losses", "finding voxels", "clip and Adam"
PARTS = {
    "vfe": "vfe",
    "focal encoder": "backbone_3d.focal_encoder",
    "dsvt": "backbone_3d.dsvt",
    "bev map": "map_to_bev_module",
    "2-D backbone": "backbone_2d",
    "head": "dense_head",
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is measured, and after how many steps that do not count."""

    name: str
    settings: DetectorSettings
    batch_size: int
    points: int
    reach_m: float
    warm_up: int
    steps: int


def settings_of(name: str) -> DetectorSettings:
    return detector_settings(validate(SonarConfig, read_config(CONFIGS / f"{name}.yaml")).value)


CASES = (
    Case(name="micro", settings=settings_of("micro"), batch_size=4, points=2200, reach_m=30.0, warm_up=3, steps=15),
    Case(
        name="focal_sst",
        settings=settings_of("focal_sst"),
        batch_size=2,
        points=38_552,
        reach_m=48.0,
        warm_up=1,
        steps=2,
    ),
)


class Training:
    """A detector on sample frames, one batch after the other, with a clock in hand."""

    def __init__(self, case: Case, root: Path) -> None:
        write_sample_data(root, train=case.batch_size * 4, val=1, points=case.points, reach_m=case.reach_m)
        self.case = case
        self.voxels = 0
        self._data = SonarFolder(root=root, split="train", infos="sonar_infos_train.npz", training=True)
        torch.manual_seed(0)
        self._model = build_detector(case.settings)
        self._optimizer = build_adam(self._model, lr=1e-3, weight_decay=0.01)
        self._batches = self._cycle()
        for name, following in zip(PARTS, (*list(PARTS)[1:], LOSSES)):
            self._watch(self._model.get_submodule(PARTS[name]), name, following)

    def step(self) -> dict[str, float]:
        """One training step; the seconds of each part of it."""
        self._seconds: dict[str, float] = {}
        self._last = time.perf_counter()
        batch = next(self._batches)
        self._lap(LOADING)
        prediction = self._model(batch.points, batch.owner, len(batch))
        losses = self._model.losses(prediction, batch.boxes)
        self._lap(LOSSES)
        losses.total.backward()
        self._lap(f"{next(iter(PARTS))}, backward")
        nn.utils.clip_grad_norm_(self._model.parameters(), 10.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._lap(OPTIMIZER)
        self.voxels = prediction.voxels
        return self._seconds

    def _cycle(self) -> Iterator[Batch]:
        size, rng = self.case.batch_size, np.random.default_rng(0)
        while True:
            for first in range(0, len(self._data), size):
                yield collate([self._data.sample(index, rng) for index in range(first, first + size)])

    def _lap(self, name: str) -> None:
        """Put what has passed since the last lap down to `name`."""
        now = time.perf_counter()
        self._seconds[name] = self._seconds.get(name, 0.0) + now - self._last
        self._last = now

    def _watch(self, part: nn.Module, name: str, following: str) -> None:
        """A lap before the part, one behind it, and one where the gradient of its output is known."""

        def behind(_module: nn.Module, _given: object, out: object) -> None:
            self._lap(name)
            tensor_of(out).register_hook(lambda _gradient: self._lap(f"{following}, backward"))

        part.register_forward_pre_hook(lambda _module, _given: self._lap(FIRST))
        part.register_forward_hook(behind)


def tensor_of(out: object) -> Tensor:
    match out:
        case Tensor():
            return out
        case SparseVoxels():
            return out.features_VC
        case BevMap():
            return out.features_BCYX
        case HeadMaps():
            return out.heatmap_BKYX
        case (first, _):
            return tensor_of(first)
    raise TypeError(type(out))


def measure(case: Case, training: Training, thread_counts: list[int]) -> None:
    """The median seconds of each part, with each number of threads in turn."""
    rows: dict[int, list[dict[str, float]]] = {threads: [] for threads in thread_counts}
    for _ in range(case.warm_up):
        training.step()
    for _ in range(case.steps):
        for threads in thread_counts:
            torch.set_num_threads(threads)
            rows[threads].append(training.step())
    print(f"{case.name}: batch {case.batch_size} of {case.points} points, {training.voxels} voxels in the last step")
    print(f"{'median of ' + str(case.steps) + ' steps, seconds':<28}" + "".join(f"{n:>9} thr." for n in thread_counts))
    for name in (LOADING, FIRST, *PARTS, LOSSES):
        show(name, rows, (name,))
        if name not in (LOADING, FIRST):
            show(f"{name}, backward", rows, (f"{name}, backward",))
    show(OPTIMIZER, rows, (OPTIMIZER,))
    show("step", rows, tuple(rows[thread_counts[0]][0]))
    print()


def show(title: str, rows: dict[int, list[dict[str, float]]], names: tuple[str, ...]) -> None:
    medians = [statistics.median(sum(step[name] for name in names) for step in steps) for steps in rows.values()]
    print(f"{title:<28}" + "".join(f"{seconds:14.4f}" for seconds in medians))


def profile_step(case: Case, training: Training) -> None:
    for _ in range(case.warm_up):
        training.step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        training.step()
    print(case.name)
    print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=55))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--only", choices=[case.name for case in CASES], help="one of the two detectors")
    parser.add_argument("--threads", type=int, nargs="+", default=THREADS)
    parser.add_argument("--fresh-memory", action="store_true", help="ask the kernel anew for each large array")
    given = parser.parse_args()
    if not given.fresh_memory:
        pick_device("cpu", deterministic=False)  # as a training does, which lets glibc keep large blocks
    torch.set_num_threads(given.threads[0])
    for case in CASES:
        if given.only in (None, case.name):
            with tempfile.TemporaryDirectory() as folder:
                training = Training(case, Path(folder) / "frames")
                if given.profile:
                    profile_step(case, training)
                else:
                    measure(case, training, given.threads)


if __name__ == "__main__":
    main()
