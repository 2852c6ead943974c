from collections import Counter
from collections.abc import Sequence
from itertools import chain

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from avdata.errors import UsageError
from avdata.trainer.plan import Place, Plan, slice_of

BUCKETS = st.lists(st.sampled_from(["tall", "wide", "square"]), min_size=1, max_size=40)
SIZES = st.integers(1, 9)
SEEDS = st.integers(0, 2**63)


def epoch(plan: Plan, number: int = 0) -> list[list[Place]]:
    first = number * plan.steps_per_epoch
    return [plan.batch(first + k) for k in range(plan.steps_per_epoch)]


def order(batches: Sequence[Sequence[Place]]) -> list[int]:
    return [place.index for place in chain(*batches) if place.share > 0]


@settings(deadline=None)
@given(BUCKETS, SIZES, SEEDS, st.integers(0, 5))
def test_every_sample_counts_exactly_once_an_epoch(
    buckets: list[str], size: int, seed: int, number: int
) -> None:
    found = order(epoch(Plan(buckets, size, seed), number))
    assert Counter(found) == Counter(range(len(buckets)))


@settings(deadline=None)
@given(BUCKETS, SIZES, SEEDS)
def test_a_batch_is_full_of_one_bucket_and_its_shares_are_equal_and_sum_to_one(
    buckets: list[str], size: int, seed: int
) -> None:
    for batch in epoch(Plan(buckets, size, seed)):
        assert len(batch) == size
        assert len({buckets[place.index] for place in batch}) == 1
        shares = [place.share for place in batch if place.share]
        assert sum(shares) == pytest.approx(1)
        assert len(set(shares)) == 1


@settings(deadline=None)
@given(BUCKETS, st.integers(1, 4), st.sampled_from([1, 2, 3, 6]), SEEDS)
def test_the_ranks_slices_are_the_global_batch_whatever_their_number(
    buckets: list[str], each: int, world: int, seed: int
) -> None:
    for batch in epoch(Plan(buckets, each * world, seed)):
        slices = [slice_of(batch, rank, world) for rank in range(world)]
        assert list(chain(*slices)) == batch
        assert {len(one) for one in slices} == {each}


@settings(deadline=None)
@given(BUCKETS, SIZES, SEEDS, st.lists(st.integers(0, 200), min_size=1, max_size=8))
def test_a_batch_depends_on_its_step_alone_and_not_on_what_was_asked_before(
    buckets: list[str], size: int, seed: int, steps: list[int]
) -> None:
    wandering = Plan(buckets, size, seed)
    found = [wandering.batch(step) for step in steps]
    assert found == [Plan(buckets, size, seed).batch(step) for step in steps]


@settings(deadline=None)
@given(BUCKETS, SIZES, SEEDS)
def test_every_seat_of_two_epochs_has_its_own_key(buckets: list[str], size: int, seed: int) -> None:
    plan = Plan(buckets, size, seed)
    places = list(chain(*epoch(plan, 0), *epoch(plan, 1)))
    assert len({(place.epoch, place.position) for place in places}) == len(places)
    assert {place.epoch for place in places} == {0, 1}


def test_epochs_and_seeds_give_other_orders() -> None:
    buckets = ["wide"] * 60 + ["tall"] * 60
    plan = Plan(buckets, 8, seed=0)
    orders = [order(epoch(plan, 0)), order(epoch(plan, 1)), order(epoch(Plan(buckets, 8, 1), 0))]
    assert len({tuple(one) for one in orders}) == 3


def test_batches_of_different_buckets_are_mixed() -> None:
    buckets = ["wide"] * 200 + ["tall"] * 200
    kinds = [buckets[batch[0].index] for batch in epoch(Plan(buckets, 8, seed=0))]
    assert kinds not in (sorted(kinds), sorted(kinds, reverse=True))


@settings(deadline=None)
@given(BUCKETS, SIZES, st.integers(2, 9), SEEDS)
def test_a_batch_that_ranks_cannot_share_is_refused_with_one_that_they_can(
    buckets: list[str], size: int, world: int, seed: int
) -> None:
    assume(size % world)
    batch = Plan(buckets, size, seed).batch(0)
    with pytest.raises(UsageError, match=f"batch_size = {size} .* {world} processes; use") as error:
        slice_of(batch, 0, world)
    offered = int(str(error.value).rsplit(" ", 1)[1])
    assert slice_of(Plan(buckets, offered, seed).batch(0), world - 1, world)


def test_no_samples_is_an_error() -> None:
    with pytest.raises(UsageError, match="no samples"):
        Plan([], 4, seed=0)
