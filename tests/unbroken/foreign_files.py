"""Files and folders as other programs write them, by the keys and names that their own code gives them.

Lightning 2.6, timm 1.0, ultralytics 8.4, transformers 5, accelerate 1.15, torch's distributed checkpoint and DeepSpeed
0.19 were looked at beside these; the networks here are a few numbers.
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn


class DetectionModel(nn.Module):
    """A network that is saved as an object, as ultralytics does."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(2, 1)


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(2, 2)).sum().backward()
    optimizer.step()
    return model, optimizer


def lightning(path: Path, *, full: bool = True) -> None:
    model, optimizer = trained()
    tree: dict[str, Any] = {
        "epoch": 1,
        "global_step": 3,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": model.state_dict(),
        "loops": {"fit_loop": {"state_dict": {}}},
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.1},
    }
    if full:
        tree |= {"callbacks": {}, "optimizer_states": [optimizer.state_dict()], "lr_schedulers": []}
    torch.save(tree, path)


def timm(path: Path) -> None:
    model, optimizer = trained()
    args = argparse.Namespace(model="resnet18", lr=0.1)
    torch.save(
        {
            "epoch": 3,
            "arch": "resnet18",
            "optimizer": optimizer.state_dict(),
            "version": 2,
            "args": args,
            "state_dict": model.state_dict(),
            "metric": 71.2,
        },
        path,
    )


def ultralytics(path: Path, *, full: bool = True) -> None:
    _, optimizer = trained()
    torch.save(
        {
            "epoch": 3 if full else -1,
            "best_fitness": 0.5 if full else None,
            "model": None if full else DetectionModel().half(),
            "ema": DetectionModel().half() if full else None,
            "updates": 100 if full else None,
            "optimizer": optimizer.state_dict() if full else None,
            "train_args": {"lr0": 0.1, "model": "yolov8n.yaml"},
            "train_metrics": {"metrics/mAP50(B)": 0.4},
            "date": "2026-01-01T08:00:00",
            "version": "8.4.190",
            "license": "AGPL-3.0",
            "docs": "https://docs.ultralytics.com",
        },
        path,
    )


def safetensors(path: Path, names: tuple[str, ...] = ("weight",)) -> None:
    """The format as its page has it: a length, a header in JSON, the numbers."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for place, name in enumerate(names):
        header[name] = {"dtype": "F32", "shape": [2], "data_offsets": [8 * place, 8 * place + 8]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + np.arange(2 * len(names), dtype="<f4").tobytes())


def hugging_face_shards(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}), "utf-8")
    weight_map = {}
    for number in (1, 2, 3):
        name = f"model-{number:05d}-of-00003.safetensors"
        safetensors(folder / name, (f"layer.{number}.weight", f"layer.{number}.bias"))
        weight_map |= {f"layer.{number}.weight": name, f"layer.{number}.bias": name}
    index = {"metadata": {"total_size": 48}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")


def hugging_face_trainer(folder: Path) -> None:
    _, optimizer = trained()
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", "utf-8")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 2, "epoch": 1.0}), "utf-8")
    safetensors(folder / "model.safetensors")
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    torch.save(torch.optim.lr_scheduler.StepLR(optimizer, 1).state_dict(), folder / "scheduler.pt")
    torch.save(
        {"python": (3, (1, 2), None), "numpy": ("MT19937",), "cpu": torch.get_rng_state()}, folder / "rng_state.pth"
    )
    torch.save(argparse.Namespace(output_dir="out"), folder / "training_args.bin")


def accelerate(folder: Path) -> None:
    _, optimizer = trained()
    folder.mkdir(parents=True)
    safetensors(folder / "model.safetensors")
    torch.save(optimizer.state_dict(), folder / "optimizer.bin")
    torch.save(torch.optim.lr_scheduler.StepLR(optimizer, 1).state_dict(), folder / "scheduler.bin")
    states = {
        "step": 0,
        "random_state": (3, (1, 2), None),
        "numpy_random_seed": ("MT19937", [1, 2], 0, 0, 0.0),
        "torch_manual_seed": torch.get_rng_state(),
    }
    torch.save(states, folder / "random_states_0.pkl")


def distributed(folder: Path) -> None:
    import torch.distributed.checkpoint as dcp

    model, optimizer = trained()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this is one process
        dcp.save({"model": model.state_dict(), "optim": optimizer.state_dict()}, checkpoint_id=folder)


def deepspeed(folder: Path) -> None:
    model, optimizer = trained()
    step = folder / "global_step3"
    step.mkdir(parents=True)
    (folder / "latest").write_text("global_step3", "utf-8")
    (folder / "zero_to_fp32.py").write_text("# DeepSpeed's own\n", "utf-8")
    states = {
        "module": model.state_dict(),
        "buffer_names": [],
        "optimizer": None,
        "param_shapes": [],
        "lr_scheduler": None,
        "skipped_steps": 0,
        "global_steps": 3,
        "global_samples": 6,
        "dp_world_size": 1,
        "mp_world_size": 1,
        "ds_config": {},
        "ds_version": "0.19.8",
    }
    torch.save(states, step / "mp_rank_00_model_states.pt")
    torch.save(
        {"optimizer_state_dict": optimizer.state_dict(), "ds_config": {}, "ds_version": "0.19.8"},
        step / "zero_pp_rank_0_mp_rank_00_optim_states.pt",
    )


def torchscript(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py", "version"):
            archive.writestr(f"script/{name}", b"N." if name.endswith(".pkl") else b"3\n")


def exported(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("archive_format", "models/model.json", "data/weights/weight_0", "version", "byteorder"):
            archive.writestr(f"exported/{name}", b"pt2")


def numpy_archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3))


def numpy_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def bare_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"epoch": 1, "weights": [1, 2]}, protocol=4))


def tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("model/weights.txt")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))


def beginning(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data + bytes(600)) and None
