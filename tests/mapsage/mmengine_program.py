"""The other program: MMEngine's own Runner trains MMSegmentation's SegFormer. It runs in its own environment.

Its one argument is JSON, a list of trainings, done one after the other: `config` (a path), `work_dir`, further
`options` of the config, the checkpoint to `resume`, and `probe`, a file for what one more step of the optimizer makes
of the weights, from gradients that both programs can form alike.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


class NoOperations(types.ModuleType):
    """mmcv-lite has no compiled operations. SegFormer uses none, but MMSegmentation imports their names."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*_arguments: object, **_named: object) -> None:
            raise NotImplementedError(f"mmcv-lite cannot {name}")

        return refuse


sys.modules["mmcv._ext"] = NoOperations("mmcv._ext")
import mmseg.datasets  # noqa: E402
import mmseg.engine  # noqa: E402
import mmseg.evaluation  # noqa: E402
import mmseg.models  # noqa: E402
import mmseg.visualization  # noqa: E402, F401
from mmengine.config import Config  # noqa: E402
from mmengine.runner import Runner  # noqa: E402

del sys.modules["mmcv._ext"]  # MMEngine asks whether it is there: as in any environment with mmcv-lite, it is not


def train(asked: dict[str, Any]) -> None:
    """One training, from the start or resumed; `Runner` raises whatever it does not like."""
    config = Config.fromfile(asked["config"])
    config.merge_from_dict({"work_dir": asked["work_dir"], **asked.get("options", {})})
    config.experiment_name = Path(asked["work_dir"]).name  # a Runner shares its logs with others of its name
    if "resume" in asked:
        config.load_from, config.resume = asked["resume"], True
    runner = Runner.from_cfg(config)
    runner.train()
    if "probe" in asked:
        for parameter in runner.model.parameters():
            parameter.grad = parameter.detach() * 0.125
        runner.optim_wrapper.optimizer.step()  # the wrapper's would clip these gradients
        torch.save({"state_dict": runner.model.state_dict()}, asked["probe"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    for each in json.loads(sys.argv[1]):
        train(each)
