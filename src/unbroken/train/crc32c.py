"""CRC-32C, by which TensorBoard's records are checked: a loop over their bytes was most of what curves cost a training.

A checksum of this kind is linear: it is the exclusive or of what each byte adds, given how many bytes follow it. From a
table of that numpy adds up a block of bytes at once, and those of many records of one length together.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

POLYNOMIAL = np.uint32(0x82F63B78)  # Castagnoli's, reversed (RFC 3720, section 12.1)
ALL_ONES = np.uint32(0xFFFFFFFF)
BLOCK_BYTES = 256

Words = npt.NDArray[np.uint32]


def crc32c(rows_NB: npt.NDArray[np.uint8]) -> Words:
    """The checksum of each of N rows of B bytes."""
    state_N = np.full(len(rows_NB), ALL_ONES, "<u4")
    for begin in range(0, rows_NB.shape[1], BLOCK_BYTES):
        block = rows_NB[:, begin : begin + BLOCK_BYTES].copy()
        size = block.shape[1]
        block[:, :4] ^= state_N.view(np.uint8).reshape(-1, 4)[:, :size]
        left = state_N >> np.uint32(8 * size) if size < 4 else np.uint32(0)  # the state is longer than the block
        added_NB = _ADDED[np.arange(size - 1, -1, -1), block]
        state_N = (np.bitwise_xor.reduce(added_NB, axis=1) ^ left).astype("<u4")
    return state_N ^ ALL_ONES


def _added() -> Words:
    """What each value of a byte adds, by the number of bytes that follow it in its block."""
    row = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        row = np.where(row & 1, (row >> 1) ^ POLYNOMIAL, row >> 1).astype(np.uint32)
    rows = [row]
    for _ in range(BLOCK_BYTES - 1):
        rows.append(rows[0][rows[-1] & 0xFF] ^ (rows[-1] >> 8))
    return np.stack(rows)


_ADDED = _added()
