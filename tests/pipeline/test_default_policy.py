"""The default policy: a clip for each of its rules, and what is just good enough."""

import dataclasses

import pytest

from avdata.pipeline.arrow import from_table, to_table
from avdata.pipeline.decide import decide
from avdata.pipeline.policy import load_policy
from avdata.pipeline.record import Clip, Sync
from tests.pipeline.clips import a_clip


def decided(*clips: Clip) -> list[Clip]:
    return from_table(Clip, decide(to_table(Clip, clips), load_policy()))


def but_for(**changed: object) -> Clip:
    """A clip that the default policy keeps but for what is changed in one of its structs."""
    clip = a_clip()
    structs = {
        name: dataclasses.replace(
            getattr(clip, name),
            **{key: value for key, value in changed.items() if hasattr(getattr(clip, name), key)},
        )
        for name in ("technical", "labels", "media")
    }
    return dataclasses.replace(clip, **structs)


def late(lag_ms: float, confidence: float = 0.5) -> Clip:
    return dataclasses.replace(a_clip(), sync=Sync(lag_ms, confidence))


BAD = {
    "silent": but_for(silent=True),
    "static": but_for(motion="static"),
    "too_dark": but_for(luma_mean=0.029),
    "empty_picture": but_for(luma_std=0.009),
    "frozen": but_for(frozen_share=0.81),
    "broken_timing": but_for(flags=["timestamps_out_of_order"]),
    "decode_errors": but_for(flags=["x", "decode_errors"]),
    "sound_late": late(121),
    "sound_early": late(-121),
    "uncaptioned": dataclasses.replace(a_clip(), caption_failure="video:refused"),
}


def test_there_is_a_bad_clip_for_every_rule() -> None:
    """But for that of copies, which takes more than one."""
    assert set(load_policy().rules) == {*BAD, "duplicate"}


@pytest.mark.parametrize("rule", BAD)
def test_a_bad_clip_falls_to_the_rule_that_is_meant(rule: str) -> None:
    (clip,) = decided(BAD[rule])
    assert (clip.status, clip.reasons) == ("drop", [rule])


def test_what_is_just_good_enough_is_kept() -> None:
    good = [
        a_clip(),
        but_for(luma_mean=0.031, luma_std=0.011, frozen_share=0.79, flags=["truncated"]),
        but_for(motion="static", contact=True),
        late(119),
        late(-119),
        late(900, 0.49),  # So little is known of it that it is no reason.
    ]
    assert [clip.reasons for clip in decided(*good)] == [[]] * len(good)
