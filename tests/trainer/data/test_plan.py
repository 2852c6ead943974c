import math
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from avdata.errors import UsageError
from avdata.trainer.data.bucket import Batches, Bucket, Group
from avdata.trainer.data.config import Remainder
from avdata.trainer.data.plan import GlobalBatch, Plan, slice_of
from avdata.trainer.data.rows import joined, rows_between, rows_where

LAWS = settings(deadline=None, max_examples=40)
SEEDS = st.integers(0, 2**63)
WORLDS = st.integers(1, 9)
WEIGHTS = st.decimals("0.01", 3, places=2)


@st.composite
def layouts(draw: st.DrawFn, weighted: bool = False) -> dict[str, Bucket]:
    """Buckets of some groups, with batch sizes of their own; rows are dealt out in turn. All
    together have a sample an epoch at least.
    """
    found, row = {}, 0
    for name in draw(st.lists(st.sampled_from("pqr"), min_size=1, max_size=3, unique=True)):
        groups = []
        for _ in range(draw(st.integers(1, 2))):
            size = draw(st.integers(1, 17))
            weight = Fraction(str(draw(WEIGHTS))) if weighted else Fraction(1)
            groups.append(Group(rows_between([(row, row + size)]), weight))
            row += size
        found[name] = Bucket(groups, draw(st.integers(1, 9)))
    assume(sum(bucket.due for bucket in found.values()) >= 1)
    return found


def epoch(plan: Plan, number: int = 0) -> list[GlobalBatch]:
    steps = range(plan.steps_before(number), plan.steps_before(number + 1))
    return [plan.batch(step) for step in steps]


def real(batches: list[GlobalBatch]) -> list[int]:
    return [int(row) for batch in batches for row in batch.rows[: batch.num_real]]


def rows_of(bucket: Bucket) -> set[int]:
    return {int(r) for g in bucket.groups for r in g.samples.at(np.arange(len(g.samples)))}


def same(one: GlobalBatch, other: GlobalBatch) -> bool:
    names = ("step", "epoch", "bucket", "num_real", "first_position")
    return one.rows.tolist() == other.rows.tolist() and all(
        getattr(one, name) == getattr(other, name) for name in names
    )


@LAWS
@given(layouts(), SEEDS, st.integers(0, 5))
def test_every_sample_counts_exactly_once_an_epoch(
    buckets: dict[str, Bucket], seed: int, number: int
) -> None:
    found = real(epoch(Plan(buckets, seed), number))
    assert Counter(found) == Counter(chain(*map(rows_of, buckets.values())))


@LAWS
@given(layouts(weighted=True), SEEDS, st.integers(1, 12))
def test_over_any_epochs_a_sample_comes_as_often_as_its_weight_says(
    buckets: dict[str, Bucket], seed: int, epochs: int
) -> None:
    """So none of a weight, of whatever bucket, is more than one ahead of another."""
    plan = Plan(buckets, seed)
    counts = Counter(real(list(chain(*(epoch(plan, k) for k in range(epochs))))))
    for bucket in buckets.values():
        for group in bucket.groups:
            size, wanted = len(group.samples), epochs * group.weight
            found = [counts[int(row)] for row in group.samples.at(np.arange(size))]
            assert sum(found) == math.floor(size * wanted)
            assert set(found) <= {math.floor(wanted), math.ceil(wanted)}


@LAWS
@given(layouts(weighted=True), st.integers(1, 300), st.sampled_from(["pad", "carry", "drop"]))
def test_batches_before_an_epoch_are_those_of_the_epochs_before(
    buckets: dict[str, Bucket], number: int, remainder: Remainder
) -> None:
    for bucket in buckets.values():
        counted, left = 0, 0
        for k in range(number):
            seats = left + bucket.seats_before(k + 1) - bucket.seats_before(k)
            whole, left = divmod(seats, bucket.batch_size)
            counted += whole + (remainder == "pad" and left > 0)
            left *= remainder == "carry"
        assert Batches(bucket, remainder).before(number) == counted


@LAWS
@given(layouts(weighted=True), SEEDS, st.sampled_from(["pad", "carry", "drop"]))
def test_a_batch_is_full_of_one_bucket_whatever_becomes_of_the_last(
    buckets: dict[str, Bucket], seed: int, remainder: Remainder
) -> None:
    small = [name for name, bucket in buckets.items() if bucket.due < bucket.batch_size]
    if remainder == "drop" and small:
        with pytest.raises(UsageError, match="drop would hardly ever train on") as caught:
            Plan(buckets, seed, remainder)
        assert all(f"{name} (" in str(caught.value) for name in small)
        return
    plan = Plan(buckets, seed, remainder)
    for step in range(40):
        batch = plan.batch(step)
        bucket = buckets[batch.bucket]
        assert len(batch.rows) == bucket.batch_size
        assert set(batch.rows.tolist()) <= rows_of(bucket)
        assert 1 <= batch.num_real <= bucket.batch_size
        assert remainder == "pad" or batch.num_real == bucket.batch_size


@LAWS
@given(layouts(), SEEDS)
def test_what_is_carried_is_neither_lost_nor_repeated(
    buckets: dict[str, Bucket], seed: int
) -> None:
    """After any epoch a bucket lacks less than a batch, and no sample is more than one ahead."""
    plan = Plan(buckets, seed, "carry")
    seen: dict[str, Counter[int]] = {name: Counter() for name in buckets}
    for number in range(6):
        for batch in epoch(plan, number):
            seen[batch.bucket].update(batch.rows.tolist())
        for name, bucket in buckets.items():
            taken = seen[name].total()
            assert 0 <= (number + 1) * bucket.due - taken < bucket.batch_size
            times = taken // bucket.due
            assert {seen[name][row] for row in rows_of(bucket)} <= {times, times + 1}


@LAWS
@given(layouts(), SEEDS)
def test_what_is_dropped_is_less_than_a_batch_of_each_bucket(
    buckets: dict[str, Bucket], seed: int
) -> None:
    assume(all(b.due >= b.batch_size for b in buckets.values()))
    plan = Plan(buckets, seed, "drop")
    found = Counter(batch.bucket for batch in epoch(plan))
    assert found == Counter({n: int(b.due) // b.batch_size for n, b in buckets.items()})
    assert max(Counter(real(epoch(plan))).values()) == 1


@LAWS
@given(layouts(weighted=True), SEEDS, WORLDS)
def test_the_ranks_slices_are_the_global_batch_whatever_their_number(
    buckets: dict[str, Bucket], seed: int, world: int
) -> None:
    for batch in epoch(Plan(buckets, seed)):
        slices = [slice_of(batch, rank, world) for rank in range(world)]
        assert len({len(seats) for seats, _ in slices}) == 1
        counted = [int(s) for seats, counts in slices for s in seats[counts == 1]]
        assert counted == list(range(batch.num_real))


@LAWS
@given(layouts(weighted=True), SEEDS, st.lists(st.integers(0, 10**9), min_size=1, max_size=6))
def test_a_batch_depends_on_its_step_alone_and_not_on_what_was_asked_before(
    buckets: dict[str, Bucket], seed: int, steps: list[int]
) -> None:
    wandering = Plan(buckets, seed, "carry")
    for step in steps:
        assert same(wandering.batch(step), Plan(buckets, seed, "carry").batch(step))


@LAWS
@given(layouts(weighted=True), SEEDS, st.sampled_from(["pad", "carry"]), st.integers(0, 10**15))
def test_steps_and_epochs_count_alike(
    buckets: dict[str, Bucket], seed: int, remainder: Remainder, step: int
) -> None:
    plan = Plan(buckets, seed, remainder)
    number = plan.epoch_of(step)
    assert plan.steps_before(number) <= step < plan.steps_before(number + 1)


@LAWS
@given(layouts(weighted=True), SEEDS)
def test_every_seat_of_two_epochs_has_its_own_key(buckets: dict[str, Bucket], seed: int) -> None:
    plan = Plan(buckets, seed)
    batches = [*epoch(plan, 0), *epoch(plan, 1)]
    keys = [
        (batch.epoch, batch.first_position + seat)
        for batch in batches
        for seat in range(len(batch.rows))
    ]
    assert len(set(keys)) == len(keys)
    assert [batch.epoch for batch in batches] == [plan.epoch_of(batch.step) for batch in batches]


def two_buckets(size: int = 200) -> dict[str, Bucket]:
    return {
        "p": Bucket([Group(rows_between([(0, size)]))], 8),
        "q": Bucket([Group(rows_between([(size, 2 * size)]))], 8),
    }


def test_epochs_and_seeds_give_other_orders() -> None:
    plan = Plan(two_buckets(), seed=0)
    orders = [epoch(plan, 0), epoch(plan, 1), epoch(Plan(two_buckets(), 1), 0)]
    assert len({tuple(real(one)) for one in orders}) == 3
    # Not only the order of the batches: their company, too.
    company = [{frozenset(batch.rows.tolist()) for batch in one} for one in orders]
    assert all(not one & other for one, other in combinations(company, 2))


def test_batches_of_different_buckets_are_mixed() -> None:
    kinds = [batch.bucket for batch in epoch(Plan(two_buckets(), seed=0))]
    assert kinds not in (sorted(kinds), sorted(kinds, reverse=True))


def test_groups_of_a_bucket_are_mixed_in_its_batches() -> None:
    groups = [Group(rows_between([(0, 100)])), Group(rows_between([(100, 200)]), Fraction(2))]
    batches = epoch(Plan({"p": Bucket(groups, 20)}, seed=0))
    assert all(0 < (batch.rows < 100).sum() < 20 for batch in batches)


def test_each_order_is_its_own() -> None:
    """Of epochs and seeds: which seats groups have, which steps buckets have. Of groups of one
    size: whose turn it is. Of buckets of one size: the order of their samples.
    """

    def orders(seed: int, number: int) -> tuple[list[bool], list[str], list[list[int]]]:
        """Of one bucket's seats, of all buckets' steps, and of the samples of each group."""
        starts = range(0, 160, 40)
        groups = [Group(rows_between([(first, first + 40)])) for first in starts]
        fewer = [replace(groups[k], weight=Fraction(1, 2 << k)) for k in range(2)]
        whole = {
            "p": Bucket(fewer, 30),
            "q": Bucket(groups[2:3], 40),
            "r": Bucket(groups[3:], 40),
        }
        rows = {batch.bucket: batch.rows for batch in epoch(Plan(whole, seed), number)}
        taken = np.concatenate(list(rows.values()))
        of_each = [[int(r) - first for r in taken if 0 <= r - first < 40] for first in starts]
        kinds = [batch.bucket for batch in epoch(Plan(two_buckets(), seed), number)]
        return (rows["p"] < 40).tolist(), kinds, of_each

    found = [orders(0, 0), orders(0, 1), orders(1, 0)]
    for one, other in combinations(found, 2):
        assert one[0] != other[0]
        assert one[1] != other[1]
    for _, _, (half, quarter, *buckets) in found:
        assert not set(quarter) <= set(half)
        assert buckets[0] != buckets[1]


def test_no_samples_is_an_error() -> None:
    with pytest.raises(UsageError, match="no samples"):
        Plan({}, seed=0)


@given(st.lists(st.booleans(), max_size=300), st.integers(0, 300))
def test_rows_are_those_of_a_mask_also_when_it_is_cut(mask: list[bool], cut: int) -> None:
    marked, wanted = np.array(mask, dtype=bool), np.flatnonzero(mask)
    parts = joined([rows_where(marked[:cut]), rows_where(marked[cut:], cut)])
    for rows in (rows_where(marked), parts):
        assert rows.at(np.arange(len(rows))).tolist() == wanted.tolist()
        assert rows.at(np.arange(len(rows))[::-3]).tolist() == wanted[::-3].tolist()
        held = rows.words.nbytes + rows.first.nbytes + rows.before.nbytes
        assert 8 * held <= 3 * (len(mask) + 3 * 64)


@given(st.lists(st.integers(0, 200), max_size=8))
def test_rows_of_spans_are_all_between_their_ends(edges: list[int]) -> None:
    ends = sorted(edges)
    spans = list(zip(ends[::2], ends[1::2], strict=False))
    rows = rows_between(spans)
    wanted = [row for first, end in spans for row in range(first, end)]
    assert rows.at(np.arange(len(rows))).tolist() == wanted
