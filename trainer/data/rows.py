"""A set of rows as bits: what a filter leaves of an index, in three bits a row at most."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from numpy import ndarray

WORD = 64
BLOCK = 1 << 16
"""Rows of a span whose bits are made at once."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rising rows: word k has the bits of the rows from `first[k]` on, lowest bit first."""

    words: UInt8[ndarray, " words 8"]
    first: Int64[ndarray, " words"]
    before: Int64[ndarray, " words_and_one"]
    """Rows in the words before each."""

    def __len__(self) -> int:
        return int(self.before[-1])

    def at(self, numbers: Int64[ndarray, " some"]) -> Int64[ndarray, " some"]:
        """The rows of these numbers, each below the length."""
        word = np.searchsorted(self.before, numbers, side="right") - 1
        bits = np.unpackbits(self.words[word], axis=1, bitorder="little")
        # The bit that makes them more than those to pass over.
        passed = np.cumsum(bits, axis=1, dtype=np.uint8) > (numbers - self.before[word])[:, None]
        rows: Int64[ndarray, " some"] = self.first[word] + passed.argmax(axis=1)
        return rows


def rows_between(spans: Iterable[tuple[int, int]]) -> Rows:
    """Of (first, end) pairs in rising order."""
    return joined(
        [
            rows_where(np.ones(min(BLOCK, end - at), bool), at)
            for first, end in spans
            for at in range(first, end, BLOCK)
        ]
    )


def rows_where(mask: Bool[ndarray, " rows"], first: int = 0) -> Rows:
    """Where it is True, counted from a first row; words without any take no memory."""
    bits = np.zeros((-(-len(mask) // WORD), WORD), bool)
    bits.reshape(-1)[: len(mask)] = mask
    counts = bits.sum(1)
    (some,) = np.nonzero(counts)
    words = np.packbits(bits[some], axis=1, bitorder="little")
    return Rows(words, first + some * WORD, np.concatenate([[0], np.cumsum(counts[some])]))


def joined(parts: Sequence[Rows]) -> Rows:
    """Parts one after the other, all rows of one before those of the next."""
    if not parts:
        return rows_where(np.zeros(0, bool))
    counts = np.concatenate([np.diff(rows.before) for rows in parts])
    return Rows(
        np.concatenate([rows.words for rows in parts]),
        np.concatenate([rows.first for rows in parts]),
        np.concatenate([[0], np.cumsum(counts)]),
    )
