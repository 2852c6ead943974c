"""A set of rows as runs of neighbours: what a filter leaves of an index, in little memory."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64
from numpy import ndarray


@dataclass(frozen=True, slots=True)
class Runs:
    """Rows in rising order; from the `before[k]`-th on they are `first[k]`, `first[k] + 1`, ..."""

    first: Int64[ndarray, " runs"]
    before: Int64[ndarray, " runs_and_one"]

    def __len__(self) -> int:
        return int(self.before[-1])

    def at(self, numbers: Int64[ndarray, " some"]) -> Int64[ndarray, " some"]:
        """The rows of these numbers, each below the length."""
        run = np.searchsorted(self.before, numbers, side="right") - 1
        rows: Int64[ndarray, " some"] = self.first[run] + numbers - self.before[run]
        return rows


def runs_of(spans: Iterable[tuple[int, int]]) -> Runs:
    """Of (first, end) pairs in rising order."""
    pairs = np.array([span for span in spans if span[0] < span[1]], np.int64).reshape(-1, 2)
    lengths = pairs[:, 1] - pairs[:, 0]
    return Runs(pairs[:, 0], np.concatenate([[0], np.cumsum(lengths)]))


def runs_where(mask: Bool[ndarray, " rows"]) -> Runs:
    """Of the rows where it is True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).view(np.int8)))
    lengths = edges[1::2] - edges[::2]
    return Runs(edges[::2], np.concatenate([[0], np.cumsum(lengths)]))


def joined(parts: Sequence[tuple[int, Runs]]) -> Runs:
    """Runs one after the other, each of rows counted from a row of its own."""
    first = np.concatenate([start + runs.first for start, runs in parts])
    lengths = np.concatenate([np.diff(runs.before) for _, runs in parts])
    return Runs(first, np.concatenate([[0], np.cumsum(lengths)]))
