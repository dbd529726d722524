"""A permutation of any size in constant memory and time: a Feistel network over the places, walked until it fits.

A Feistel network permutes the numbers of an even number of bits whatever its round function is (M. Luby, C. Rackoff,
"How to construct pseudorandom permutations from pseudorandom functions", SIAM J. Comput. 17, 1988: four rounds are
enough for a good round function). Where the size is no such power of two, an image beyond it is permuted again until
it lies within ("cycle walking": J. Black, P. Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002); fewer than
four tries are needed on average. The round function is the finaliser of MurmurHash3 (A. Appleby) on 64 bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

ROUNDS = 6
Numbers = npt.NDArray[np.uint64]


class KeyedPermutation(Sequence[int]):
    """The numbers below `size` in an order that follows from `seed` alone; nothing is drawn before it is asked for."""

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._half = np.uint64(max(((size - 1).bit_length() + 1) // 2, 1))
        self._mask = np.uint64((1 << int(self._half)) - 1)
        digests = [hashlib.sha256(f"{seed}:{number}".encode()).digest() for number in range(ROUNDS)]
        self._keys = [np.uint64(int.from_bytes(digest[:8], "big")) for digest in digests]

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, place: int) -> int: ...

    @overload
    def __getitem__(self, place: slice) -> list[int]: ...

    def __getitem__(self, place: int | slice) -> int | list[int]:
        if isinstance(place, slice):
            places = np.arange(*place.indices(self._size), dtype=np.uint64)
            return [int(image) for image in self._images(places).tolist()]
        return int(self._images(np.array([range(self._size)[place]], dtype=np.uint64))[0])

    def _images(self, places: Numbers) -> Numbers:
        images = self._permuted(places)
        while (beyond := images >= self._size).any():
            images[beyond] = self._permuted(images[beyond])
        return images

    def _permuted(self, numbers: Numbers) -> Numbers:
        left, right = numbers >> self._half, numbers & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right ^ key) & self._mask)
        return (left << self._half) | right


def _mixed(numbers: Numbers) -> Numbers:
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        numbers = (numbers ^ (numbers >> np.uint64(33))) * np.uint64(factor)
    return numbers ^ (numbers >> np.uint64(33))
