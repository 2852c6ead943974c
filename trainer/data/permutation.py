"""A bijection of 0 ... n - 1 that is computed, not stored: any position costs the same.

A Feistel network over Z_a x Z_b, the smallest such grid that holds n, and where it leads beyond n
it is applied again (Black and Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002). Its
rounds mix with the multiplications of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
"""

import math

import numpy as np
from jaxtyping import Int64, UInt64
from numpy import ndarray

ROUNDS = 16
"""Fewer leave a bias that can be seen in the orders of five samples."""
_MULTIPLIER, _HALF, _TOP = np.uint64(0xBF58476D1CE4E5B9), np.uint64(32), np.uint64(2)


class Permutation:
    """Keyed by some integers, none negative; different keys give unrelated orders."""

    def __init__(self, size: int, *key: int) -> None:
        self.size = size
        # The length, too: SeedSequence takes [1] and [1, 0] for the same.
        seeds = np.random.SeedSequence([len(key), *key])
        self._keys = seeds.generate_state(ROUNDS, np.uint64)
        # Even: on a grid with odd sides every round is an even permutation.
        rows = _even(math.isqrt(size))
        self._rows, self._columns = np.uint64(rows), np.uint64(_even(-(-size // rows)))

    def __call__(self, positions: Int64[ndarray, " some"]) -> Int64[ndarray, " some"]:
        """What lies at some positions, each below `size`."""
        found = self._once(positions.astype(np.uint64))
        while (beyond := found >= self.size).any():
            found[beyond] = self._once(found[beyond])
        return found.astype(np.int64)

    def _once(self, values: UInt64[ndarray, " some"]) -> UInt64[ndarray, " some"]:
        left, right = values // self._columns, values % self._columns
        for number in range(0, ROUNDS, 2):
            left = (left + _mixed(right, self._keys[number])) % self._rows
            right = (right + _mixed(left, self._keys[number + 1])) % self._columns
        mapped: UInt64[ndarray, " some"] = left * self._columns + right
        return mapped


def _even(number: int) -> int:
    return max(2, number + number % 2)


def _mixed(values: UInt64[ndarray, " some"], key: np.uint64) -> UInt64[ndarray, " some"]:
    """Below 2 ** 62, so that a sum with it is exact."""
    mixed = (values ^ key) * _MULTIPLIER
    mixed ^= mixed >> _HALF
    mixed *= _MULTIPLIER
    mixed >>= _TOP
    return mixed
