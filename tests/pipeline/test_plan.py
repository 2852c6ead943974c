import dataclasses
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avdata.encoders.spec import ClipShape
from avdata.pipeline.record import Clip, Duplicates
from avdata.pipeline.shards.facts import groups
from avdata.pipeline.shards.plan import PlanSettings, ShardPlan, families, plan_shards
from tests.pipeline.clips import CAPTIONS, MEANING, a_clip

SHAPE = ClipShape()


def of(shape: ClipShape) -> Callable[[Clip], ClipShape]:
    """The same for every clip."""
    return lambda _: shape


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
    plans = plan_shards(clips, of(SHAPE), dealt)
    assert sorted(ids(plans)) == sorted(clip.clip_id for clip in clips)
    assert len({plan.name for plan in plans}) == len(plans)
    assert all(1 <= len(plan.clips) <= dealt.samples_per_shard for plan in plans)


@settings(max_examples=60, deadline=None)
@given(CORPORA, SETTINGS)
def test_splits_never_share_a_source(clips: list[Clip], dealt: PlanSettings) -> None:
    sources: dict[str, set[str]] = {"train": set(), "val": set()}
    for plan in plan_shards(clips, of(SHAPE), dealt):
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
    assert plan_shards(shuffled, of(SHAPE), dealt) == plan_shards(clips, of(SHAPE), dealt)


@pytest.mark.parametrize("val_fraction", [0.1, 0.9])
def test_a_lone_source_is_for_training(val_fraction: float) -> None:
    (plan,) = plan_shards([a_clip()], of(SHAPE), PlanSettings(val_fraction=val_fraction))
    assert plan.split == "train"


def corpus() -> list[Clip]:
    return [a_clip(f"{source}.mp4", 2.5 * k) for source in range(10) for k in range(5)]


def test_another_seed_deals_otherwise() -> None:
    one = plan_shards(corpus(), of(SHAPE), PlanSettings(seed=0))
    other = plan_shards(corpus(), of(SHAPE), PlanSettings(seed=1))
    assert ids(one) != ids(other)
    assert sorted(ids(one)) == sorted(ids(other))


def test_sources_are_mixed_within_a_shard() -> None:
    first = plan_shards(corpus(), of(SHAPE), PlanSettings(samples_per_shard=16))[0]
    assert len({clip.source.digest for clip in first.clips}) > 4


def test_the_digest_changes_with_whatever_the_bytes_depend_on() -> None:
    clips, dealt = corpus(), PlanSettings(samples_per_shard=100, val_fraction=0)
    (base,) = plan_shards(clips, of(SHAPE), dealt, {"encoder": "a"})
    assert plan_shards(clips, of(SHAPE), dealt, {"encoder": "a"})[0].digest == base.digest
    said = dataclasses.replace(clips[0], captions=dataclasses.replace(CAPTIONS, video="other"))
    others = [
        plan_shards([said, *clips[1:]], of(SHAPE), dealt, {"encoder": "a"}),
        plan_shards(clips[1:], of(SHAPE), dealt, {"encoder": "a"}),
        plan_shards(clips, of(dataclasses.replace(SHAPE, width=640)), dealt, {"encoder": "a"}),
        plan_shards(clips, of(SHAPE), dealt, {"encoder": "b"}),
    ]
    digests = {plans[0].digest for plans in others}
    assert len(digests | {base.digest}) == 1 + len(others)


def test_what_the_bytes_do_not_depend_on_leaves_the_digest() -> None:
    clips, dealt = corpus(), PlanSettings()
    renamed = [dataclasses.replace(clip, status="keep") for clip in clips]
    digests = [plan.digest for plan in plan_shards(clips, of(SHAPE), dealt)]
    assert [plan.digest for plan in plan_shards(renamed, of(SHAPE), dealt)] == digests


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="samples_per_shard must be positive, not 0"):
        PlanSettings(samples_per_shard=0)
    with pytest.raises(ValueError, match=r"val_fraction must be in \[0, 1\), not 1"):
        PlanSettings(val_fraction=1.0)


def sharing(clip: Clip, picture: str | None, sound: str | None) -> Clip:
    found = Duplicates(picture_group=picture, sound_group=sound, best=True)
    return dataclasses.replace(clip, duplicates=found)


GROUPS = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from([None, "a", "b"]), st.sampled_from([None, "c"])),
    min_size=1,
    max_size=20,
)


@settings(max_examples=100, deadline=None)
@given(GROUPS, SETTINGS)
def test_splits_never_share_a_picture_or_a_sound(
    drawn: list[tuple[int, str | None, str | None]], dealt: PlanSettings
) -> None:
    """Nor do they by way of a third source."""
    clips = [
        sharing(a_clip(f"{source}.mp4", 2.5 * k), picture, sound)
        for k, (source, picture, sound) in enumerate(drawn)
    ]
    found: dict[str, set[str]] = {"train": set(), "val": set()}
    for plan in plan_shards(clips, of(SHAPE), dealt):
        for clip in plan.clips:
            found[plan.split] |= {clip.source.digest, *groups(clip)}
    assert not found["train"] & found["val"]


def test_sources_alike_are_one_family_also_by_way_of_others() -> None:
    one, two, three, other = (a_clip(f"{k}.mp4") for k in range(4))
    clips = [
        sharing(one, "p", None),
        sharing(two, "p", "s"),
        sharing(three, None, "s"),
        sharing(other, "s", None),  # A picture's group is not a sound's.
    ]
    found = sorted(families(clips).values(), key=len)
    assert found == [
        {other.source.digest},
        {one.source.digest, two.source.digest, three.source.digest},
    ]


@pytest.mark.parametrize("medium", ["picture", "sound"])
def test_clips_that_mean_the_same_are_one_family(medium: str) -> None:
    one, two, three, other = (a_clip(f"{k}.mp4") for k in range(4))
    group: dict[str, Any] = {f"{medium}_group": one.clip_id}
    meaning = dataclasses.replace(MEANING, **group)
    clips = [dataclasses.replace(clip, semantics=meaning) for clip in (one, two)]
    clips[1] = sharing(clips[1], None, "s")  # Nor do they part by way of a copy.
    found = families([*clips, sharing(three, None, "s"), other])
    assert sorted(map(len, found.values())) == [1, 3]
    assert {other.source.digest} in found.values()


def test_a_bucket_has_shards_of_its_own_and_a_source_one_split() -> None:
    def by_height(clip: Clip) -> ClipShape:
        return dataclasses.replace(SHAPE, height=192 if clip.start_s < 5 else 320)

    plans = plan_shards(corpus(), by_height, PlanSettings(samples_per_shard=4))
    assert {plan.bucket for plan in plans} == {"33x192x320", "33x320x320"}
    for plan in plans:
        assert plan.name.startswith(f"{plan.bucket}/{plan.split}-")
        assert {by_height(clip) for clip in plan.clips} == {plan.shape}
    assert sorted(ids(plans)) == sorted(clip.clip_id for clip in corpus())
    sides = {
        split: {c.source.digest for p in plans if p.split == split for c in p.clips}
        for split in ("train", "val")
    }
    assert sides["train"]
    assert sides["val"]
    assert not sides["train"] & sides["val"]
