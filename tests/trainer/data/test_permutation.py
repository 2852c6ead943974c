import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avdata.trainer.data.permutation import Permutation

SIZES = st.integers(1, 3000)
KEYS = st.lists(st.integers(0, 2**63), min_size=1, max_size=4)


def whole(size: int, *key: int) -> list[int]:
    found: list[int] = Permutation(size, *key)(np.arange(size)).tolist()
    return found


@settings(deadline=None, max_examples=40)
@given(SIZES, KEYS)
def test_every_number_comes_once(size: int, key: list[int]) -> None:
    assert sorted(whole(size, *key)) == list(range(size))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 10**12), KEYS, st.lists(st.floats(0, 1, exclude_max=True), max_size=20))
def test_a_position_alone_is_what_it_is_among_others(
    size: int, key: list[int], parts: list[float]
) -> None:
    positions = np.array([int(part * size) for part in parts], np.int64)
    found = Permutation(size, *key)(positions)
    assert ((found >= 0) & (found < size)).all()
    alone = [int(Permutation(size, *key)(np.array([one]))[0]) for one in positions]
    assert found.tolist() == alone


def test_keys_of_other_values_order_or_length_give_other_orders() -> None:
    keys = [(1,), (2,), (1, 0), (0, 1), (1, 0, 0)]
    assert len({tuple(whole(100, *key)) for key in keys}) == len(keys)


@pytest.mark.parametrize("size", [3, 4, 5])
def test_all_orders_of_a_few_are_equally_likely(size: int) -> None:
    """Chi-squared, below what chance exceeds once in some thousand."""
    trials, orders = 3000, math.factorial(size)
    counts = Counter(tuple(whole(size, 9, k)) for k in range(trials))
    expected = trials / orders
    squares = [(count - expected) ** 2 / expected for count in counts.values()]
    found = sum(squares) + (orders - len(counts)) * expected
    assert found < orders - 1 + 4 * math.sqrt(2 * (orders - 1))


def test_neighbours_do_not_stay_neighbours_and_places_do_not_stay() -> None:
    order = np.array(whole(10_000, 5))
    assert abs(np.corrcoef(order, np.arange(10_000))[0, 1]) < 0.05
    assert (np.abs(np.diff(order)) == 1).sum() < 20
    assert (order == np.arange(10_000)).sum() < 10
