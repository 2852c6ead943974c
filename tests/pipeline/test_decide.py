"""Which of several clips that are one to us is best, and what a policy makes of it."""

import dataclasses
import random
from typing import Any

import pytest

from avdata.pipeline.arrow import from_table, to_table
from avdata.pipeline.decide import decide
from avdata.pipeline.policy import Policy, load_policy
from avdata.pipeline.record import Clip, Duplicates, Semantics, Sync
from tests.pipeline.clips import MEANING, a_clip

Groups = tuple[str | None, str | None]
ONE_OF_COPIES = {"duplicate": "duplicates.best == false"}


def of_height(name: str, height: int, **changes: Any) -> Clip:
    """Of as many bytes a second as any other."""
    clip = a_clip(name)
    media = dataclasses.replace(clip.media, height=height)
    return dataclasses.replace(clip, media=media, **changes)


def decided(clips: list[Clip], rules: dict[str, str]) -> list[Clip]:
    return from_table(Clip, decide(to_table(Clip, clips), Policy(rules)))


def kept(clips: list[Clip], rules: dict[str, str]) -> list[str]:
    return [clip.source.uri for clip in decided(clips, rules) if clip.status == "keep"]


COPIES = [
    of_height(name, height, duplicates=Duplicates(None, None, group))
    for name, height, group in (
        ("small", 180, "g"),
        ("large", 720, "g"),
        ("middle", 360, "g"),
        ("alone", 90, None),
    )
]


def without(copies: list[Clip], name: str, **changes: Any) -> list[Clip]:
    return [
        dataclasses.replace(one, **changes) if one.source.uri == name else one for one in copies
    ]


def test_of_copies_one_is_best_the_one_with_most_pixels() -> None:
    assert kept(COPIES, ONE_OF_COPIES) == ["large", "alone"]
    best = [one.duplicates and one.duplicates.best for one in decided(COPIES, {})]
    assert best == [False, True, False, True]


def test_best_is_one_that_no_other_rule_drops() -> None:
    dark = without(COPIES, "large", shot=9)
    assert kept(dark, {**ONE_OF_COPIES, "nine": "shot == 9"}) == ["middle", "alone"]
    assert kept(dark, {"nine": "shot == 9", **ONE_OF_COPIES}) == ["middle", "alone"]
    (large,) = (one for one in decided(dark, {"nine": "shot == 9", **ONE_OF_COPIES}) if one.shot)
    assert large.reasons == ["nine", "duplicate"]


def test_the_default_policy_keeps_a_true_copy_of_a_better_one_whose_sound_is_late() -> None:
    late = without(COPIES, "large", sync=Sync(lag_ms=250.0, confidence=0.9))
    damaged = without(
        late, "middle", media=dataclasses.replace(COPIES[2].media, flags=["decode_errors"])
    )
    assert kept(damaged, load_policy().rules) == ["small", "alone"]


def test_where_all_of_a_group_are_dropped_the_best_of_all_bears_the_name() -> None:
    clips = decided(COPIES, {"all": "start_s >= 0", **ONE_OF_COPIES})
    assert [one.duplicates and one.duplicates.best for one in clips] == [False, True, False, True]
    assert [one.reasons for one in clips][1] == ["all"]


def test_deciding_again_is_the_same_however_rows_lie_and_whatever_was_decided_before() -> None:
    strict = {"tall": "media.height > 500", **ONE_OF_COPIES}
    expected = kept(COPIES, strict)
    mixed = COPIES.copy()
    for seed in range(5):
        random.Random(seed).shuffle(mixed)
        assert set(kept(decided(mixed, ONE_OF_COPIES), strict)) == set(expected)
    assert kept(decided(COPIES, strict), ONE_OF_COPIES) == kept(COPIES, ONE_OF_COPIES)


@pytest.mark.parametrize("turned", [False, True])
def test_of_clips_that_are_no_better_than_each_other_one_is_best(turned: bool) -> None:
    clips = [
        dataclasses.replace(a_clip(name), duplicates=Duplicates("g", "g", "g")) for name in "ab"
    ]
    clips = clips[::-1] if turned else clips
    (chosen,) = (one.clip_id for one in decided(clips, ONE_OF_COPIES) if one.status == "keep")
    assert chosen == min(clip.clip_id for clip in clips)


@pytest.mark.parametrize(
    "lost",
    [
        {"caption_failure": "video:refused"},
        {"semantics": dataclasses.replace(MEANING, audio_text=0.1)},
    ],
)
def test_a_copy_that_was_asked_nothing_is_not_best_for_what_the_best_was_told(
    lost: dict[str, Any],
) -> None:
    """Or it would be kept without captions, and with meaning that a rule may well forbid."""
    rules = {
        **ONE_OF_COPIES,
        "uncaptioned": 'caption_failure != ""',
        "unlike": "semantics.audio_text < 0.2",
    }
    assert kept(without(COPIES, "large", **lost), rules) == ["alone"]


def meaning(picture: str | None, sound: str | None) -> Semantics:
    return dataclasses.replace(MEANING, picture_group=picture, sound_group=sound)


def best(*groups: Groups) -> list[tuple[bool | None, bool | None]]:
    """Of `COPIES` without copies, in picture and in sound."""
    clips = [
        dataclasses.replace(clip, duplicates=None, semantics=meaning(*both))
        for clip, both in zip(COPIES, groups, strict=True)
    ]
    found = [clip.semantics for clip in decided(clips, {})]
    return [(one.picture_best, one.sound_best) for one in found if one]


def test_a_group_of_those_that_mean_the_same_has_one_best() -> None:
    assert best(("p", None), ("p", "s"), ("p", "s"), (None, None)) == [
        (False, None),
        (True, True),
        (False, False),
        (None, None),
    ]


def test_a_group_of_pictures_is_none_of_sounds() -> None:
    found = best(("g", None), (None, "g"), ("g", None), (None, "g"))
    assert found == [(False, None), (None, True), (True, None), (None, False)]


def test_what_rules_about_others_leave_is_best_in_meaning_too() -> None:
    """Copies first, then pictures, then sounds: each of what those before have left."""
    clips = [
        dataclasses.replace(one, semantics=meaning("p", "s"), duplicates=Duplicates(None, None, g))
        for one, g in zip(COPIES, ("g", "g", None, None), strict=True)
    ]
    clips = without(clips, "middle", caption_failure="video:refused")
    rules = {
        "picture": "semantics.picture_best == false",
        "uncaptioned": 'caption_failure != ""',
        **ONE_OF_COPIES,
    }
    assert kept(clips, rules) == ["large"]
    assert kept(without(clips, "large", shot=9), {**rules, "nine": "shot == 9"}) == ["small"]
    only_sound = {
        "sound": "semantics.sound_best == false",
        "nine": "semantics.picture_best == true",
    }
    assert kept(clips, only_sound) == ["middle"]
