from collections.abc import Iterator

import numpy as np
import pytest
from jaxtyping import Bool, UInt64
from numpy import ndarray

from avdata.pipeline import copies as finding
from avdata.pipeline.copies import Prints, copies


def lower_half(prints: UInt64[ndarray, " n"]) -> Iterator[UInt64[ndarray, " n"]]:
    yield prints & np.uint64((1 << 32) - 1)


def equal(
    left: UInt64[ndarray, "n width"],
    right: UInt64[ndarray, "n width"],
    inside: Bool[ndarray, "n width"],
) -> Bool[ndarray, " n"]:
    return np.asarray(((left == right) | ~inside).all(axis=1))


@pytest.mark.parametrize("num_sources", [1_000, 3_000_000, 1_000_000_000])
def test_copies_are_found_however_many_sources_there_are(num_sources: int) -> None:
    one, other = np.random.default_rng(0).integers(1, 1 << 63, (2, 8), np.uint64)
    source = np.array([7, num_sources // 2, num_sources - 2, num_sources - 1])
    values = np.stack([one, one, other, other])
    prints = Prints(source, np.zeros(4, np.int64), values, np.full(4, 8))
    assert copies(prints, lower_half, equal).tolist() == [[0, 1], [2, 3]]


def test_how_many_prints_are_looked_at_at_once_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(1)
    clips, width = 600, 8
    values = rng.integers(1, 1 << 63, (clips, width), np.uint64)
    values[300:] = values[rng.integers(0, 30, 300)]  # Some ten copies of each.
    values[:, 3] = 7  # And what all have.
    source = np.repeat(np.arange(clips // 2), 2)
    prints = Prints(source, np.tile([0, 20], clips // 2), values, np.full(clips, width))
    monkeypatch.setattr(finding, "PARTNERS", 2)  # So that it is chosen among equals.
    whole = copies(prints, lower_half, equal)
    assert len(whole) > 150
    for at_once in (10, 333, 2_000):
        monkeypatch.setattr(finding, "PRINTS_AT_ONCE", at_once)
        assert np.array_equal(copies(prints, lower_half, equal), whole)
