"""The checksum of TensorBoard's records is what its own code computes, for any length."""

from __future__ import annotations

import random

import numpy as np
import pytest
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import crc32c as of_tensorboard

from unbroken.train.record.event_records import BLOCK_BYTES, crc32c

SEED = 20261130


def of(data: bytes) -> int:
    return int(crc32c(np.frombuffer(data, np.uint8)[None])[0])


def test_it_is_the_one_that_was_standardised() -> None:
    assert of(b"123456789") == 0xE3069283
    assert of(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4
    assert of(b"") == 0


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 8, 80, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 5000])
def test_it_is_that_of_tensorboard(length: int) -> None:
    chance = random.Random(f"{SEED} {length}")
    rows = [chance.randbytes(length) for _ in range(7)]
    together = crc32c(np.frombuffer(b"".join(rows), np.uint8).reshape(7, length))
    assert together.tolist() == [of_tensorboard(row) for row in rows] == [of(row) for row in rows]
