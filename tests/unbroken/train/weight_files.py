"""A small classifier, and the files in which the world keeps weights, written as their makers write them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unbroken.train import ClassRows, Exit, open_run

RUN = Path("runs/tuned")
KNOWN = ("water", "road", "forest", "roof")
SAFETENSORS = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}


class Classifier(nn.Module):
    """Two layers with statistics between them; the rows of `head` are the classes."""

    def __init__(self, classes: int, *, width: int = 5) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width))
        self.head = nn.Linear(width, classes)

    def forward(self, x_N3: Tensor) -> Tensor:
        return self.head(self.body(x_N3))


class Rows:
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor([float(index), 1.0, -float(index)])


class Listener:
    """A console that keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def step(self, report: Any, line: str) -> None: ...

    def close(self) -> None: ...

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def weights(classes: int = 4, *, seed: int = 7, **shape: int) -> dict[str, Tensor]:
    """The state of another classifier, no tensor of which is like that of a new one."""
    torch.manual_seed(seed)
    state = Classifier(classes, **shape).state_dict()
    return {
        name: torch.full_like(t, 70) if t.dtype == torch.int64 else torch.randn(t.shape) for name, t in state.items()
    }


def new_classifier(classes: int, **shape: int) -> dict[str, Tensor]:
    """What a run of seed 0 begins with if it takes nothing from a file."""
    torch.manual_seed(0)
    return {name: tensor.clone() for name, tensor in Classifier(classes, **shape).state_dict().items()}


def session(
    root: Path,
    file: Path,
    *,
    names: Sequence[str] = KNOWN,
    steps: int = 1,
    make: Callable[[int], nn.Module] = Classifier,
    **options: Any,
) -> tuple[int, str, dict[str, Tensor]]:
    """A launch in this process: its exit code, what it said, and the weights that its first step would begin with."""
    console, began, model = Listener(), {}, None
    try:
        with open_run(
            root, tag="tuned", config={"classes": list(names)}, console=console, pretrained_model=file, **options
        ) as run:
            model = make(len(names))
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            tensors = frozenset({"head.weight", "head.bias"})
            run.adopting.class_rows = ClassRows(names=tuple(names), tensors=tensors, recorded=lambda c: c["classes"])
            began = state_of(model)
            run.track(model=model, optimizer=optimizer)
            began = state_of(model)
            for batch in run.batches(Rows(), batch_size=4, steps=steps):
                loss = model(batch).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.end_step(loss=loss)
    except Exit as ending:
        return int(str(ending.code)), console.text, state_of(model) if model is not None else {}
    return 0, console.text, began


def saved(tree: Any, name: str = "file.pth", **options: Any) -> Path:
    torch.save(tree, name, **options)
    return Path(name)


def tune(file: Path, **options: Any) -> tuple[int, str, dict[str, Tensor]]:
    return session(Path("runs"), file, **options)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether the same tensors have the same bits."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str] | None = None) -> Path:
    """By the public description of the format: 8 bytes of length, a header in JSON, the numbers."""
    header: dict[str, Any] = {"__metadata__": dict(notes)} if notes else {}
    data = b""
    for name, tensor in tensors.items():
        numbers = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        place = [len(data), len(data) + len(numbers)]
        header[name] = {"dtype": SAFETENSORS[tensor.dtype], "shape": list(tensor.shape), "data_offsets": place}
        data += numbers
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def mmengine(tensors: Mapping[str, Tensor], names: Sequence[str] = KNOWN) -> dict[str, Any]:
    """What MMEngine saves as `best_*`: it names the classes."""
    meta = {"mmengine_version": "0.10.7", "iter": 80, "epoch": 0, "dataset_meta": {"classes": tuple(names)}}
    return {"meta": meta, "state_dict": dict(tensors), "message_hub": {"log_scalars": {}}}


def contents(folder: Path) -> dict[str, str]:
    """The digest of every file of a run but of who holds its lock."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in ("lock", "holder.json"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}
