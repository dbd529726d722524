"""Files that the real MMEngine wrote for a nano SegFormer; without them the tests that need them skip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mapsage.model import EncoderDecoder, MixVisionTransformer, SegformerHead
from unbroken.checkpoint.structure import StorageReader, Structure, read_structure
from unbroken.checkpoint.tree import TensorRef

FOLDER = Path(__file__).resolve().parents[2].parent / "shared" / "fixtures" / "mmengine"
needs_files = pytest.mark.skipif(not FOLDER.is_dir(), reason="no files by the real MMEngine beside this clone")


def nano(**backbone: Any) -> EncoderDecoder:
    """The network of these files: embed 4, one block per stage, 8 classes."""
    return EncoderDecoder(
        MixVisionTransformer(embed_dims=4, num_layers=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), **backbone),
        SegformerHead(in_channels=(4, 8, 16, 32), in_index=(0, 1, 2, 3), channels=8, num_classes=8),
    )


def structure_of(name: str) -> Structure:
    return read_structure(FOLDER / name)


def with_tensors(structure: Structure, node: Any) -> Any:
    """A part of the file's tree with its tensors read; nothing of the file is executed."""
    match node:
        case TensorRef():
            return _tensor(structure, node)
        case dict():
            return {key: with_tensors(structure, value) for key, value in node.items()}
        case list():
            return [with_tensors(structure, value) for value in node]
        case _:
            return node


def logged_rates() -> dict[int, float]:
    """Learning rate by iteration, in full precision."""
    lines = (FOLDER / "20261121_221310" / "vis_data" / "scalars.json").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return {record["iter"]: record["lr"] for record in records if "lr" in record}


def log_text() -> str:
    return (FOLDER / "20261121_221310" / "20261121_221310.log").read_text()


def _tensor(structure: Structure, ref: TensorRef) -> Tensor:
    with StorageReader(structure) as reader:
        block = torch.frombuffer(reader.storage(ref.storage_key), dtype=getattr(torch, ref.dtype))
    return block.as_strided(ref.shape, ref.stride, ref.offset)
