import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avdata.encoders.spec import ClipShape
from avdata.pipeline.record import Clip
from avdata.pipeline.shards.plan import PlanSettings, ShardPlan, plan_shards
from tests.pipeline.clips import CAPTIONS, a_clip

SHAPE = ClipShape()
# How many clips each source has.
CORPORA = st.lists(st.integers(1, 6), max_size=12).map(
    lambda counts: [
        a_clip(f"{source}.mp4", 2.5 * k)
        for source, count in enumerate(counts)
        for k in range(count)
    ]
)
SETTINGS = st.builds(
    PlanSettings,
    samples_per_shard=st.integers(1, 9),
    val_fraction=st.sampled_from([0.0, 0.1, 0.5, 0.9]),
    seed=st.integers(0, 3),
)


def ids(plans: list[ShardPlan]) -> list[str]:
    return [clip.clip_id for plan in plans for clip in plan.clips]


@settings(max_examples=60, deadline=None)
@given(CORPORA, SETTINGS)
def test_every_clip_is_in_exactly_one_shard(clips: list[Clip], dealt: PlanSettings) -> None:
    plans = plan_shards(clips, SHAPE, dealt)
    assert sorted(ids(plans)) == sorted(clip.clip_id for clip in clips)
    assert len({plan.name for plan in plans}) == len(plans)
    assert all(1 <= len(plan.clips) <= dealt.samples_per_shard for plan in plans)


@settings(max_examples=60, deadline=None)
@given(CORPORA, SETTINGS)
def test_splits_never_share_a_source(clips: list[Clip], dealt: PlanSettings) -> None:
    sources: dict[str, set[str]] = {"train": set(), "val": set()}
    for plan in plan_shards(clips, SHAPE, dealt):
        sources[plan.split] |= {clip.source.digest for clip in plan.clips}
    assert not sources["train"] & sources["val"]
    several = len({clip.source.digest for clip in clips}) > 1
    assert bool(sources["val"]) == (several and dealt.val_fraction > 0)
    assert bool(sources["train"]) == bool(clips)


@settings(max_examples=60, deadline=None)
@given(CORPORA, SETTINGS, st.randoms(use_true_random=False))
def test_the_order_of_the_clips_does_not_matter(
    clips: list[Clip], dealt: PlanSettings, rng: random.Random
) -> None:
    shuffled = [*clips, *clips[:3]]  # Nor does it matter that some come twice.
    rng.shuffle(shuffled)
    assert plan_shards(shuffled, SHAPE, dealt) == plan_shards(clips, SHAPE, dealt)


@pytest.mark.parametrize("val_fraction", [0.1, 0.9])
def test_a_lone_source_is_for_training(val_fraction: float) -> None:
    (plan,) = plan_shards([a_clip()], SHAPE, PlanSettings(val_fraction=val_fraction))
    assert plan.split == "train"


def corpus() -> list[Clip]:
    return [a_clip(f"{source}.mp4", 2.5 * k) for source in range(10) for k in range(5)]


def test_another_seed_deals_otherwise() -> None:
    one = plan_shards(corpus(), SHAPE, PlanSettings(seed=0))
    other = plan_shards(corpus(), SHAPE, PlanSettings(seed=1))
    assert ids(one) != ids(other)
    assert sorted(ids(one)) == sorted(ids(other))


def test_sources_are_mixed_within_a_shard() -> None:
    first = plan_shards(corpus(), SHAPE, PlanSettings(samples_per_shard=16))[0]
    assert len({clip.source.digest for clip in first.clips}) > 4


def test_the_digest_changes_with_whatever_the_bytes_depend_on() -> None:
    clips, dealt = corpus(), PlanSettings(samples_per_shard=100, val_fraction=0)
    (base,) = plan_shards(clips, SHAPE, dealt, {"encoder": "a"})
    assert plan_shards(clips, SHAPE, dealt, {"encoder": "a"})[0].digest == base.digest
    said = dataclasses.replace(clips[0], captions=dataclasses.replace(CAPTIONS, video="other"))
    others = [
        plan_shards([said, *clips[1:]], SHAPE, dealt, {"encoder": "a"}),
        plan_shards(clips[1:], SHAPE, dealt, {"encoder": "a"}),
        plan_shards(clips, dataclasses.replace(SHAPE, width=640), dealt, {"encoder": "a"}),
        plan_shards(clips, SHAPE, dealt, {"encoder": "b"}),
    ]
    digests = {plans[0].digest for plans in others}
    assert len(digests | {base.digest}) == 1 + len(others)


def test_what_the_bytes_do_not_depend_on_leaves_the_digest() -> None:
    clips, dealt = corpus(), PlanSettings()
    renamed = [dataclasses.replace(clip, status="keep") for clip in clips]
    digests = [plan.digest for plan in plan_shards(clips, SHAPE, dealt)]
    assert [plan.digest for plan in plan_shards(renamed, SHAPE, dealt)] == digests


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="samples_per_shard must be positive, not 0"):
        PlanSettings(samples_per_shard=0)
    with pytest.raises(ValueError, match=r"val_fraction must be in \[0, 1\), not 1"):
        PlanSettings(val_fraction=1.0)
