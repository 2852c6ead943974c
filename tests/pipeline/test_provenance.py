import dataclasses

import pytest

from avdata.pipeline.coupling import coupling, lists
from avdata.pipeline.provenance import Hints, hints, named, tells
from avdata.pipeline.record import Clip
from avdata.pipeline.semantics import CLASSES, load_classes
from tests.pipeline.clips import EVENT, SOUND, a_clip

VGGSOUND = load_classes().names
PIANO, MAN, SEA, DOG = "playing piano", "male speech, man speaking", "sea waves", "dog barking"


def clip(
    music: bool | None = False, speech: bool | None = None, struck: int = 0, onsets: int = 4
) -> Clip:
    heard = dataclasses.replace(SOUND, onsets_s=[0.1 * k for k in range(onsets)])
    one = a_clip(audio=heard)
    labels = dataclasses.replace(one.labels, music=music, speech=speech)
    return dataclasses.replace(one, labels=labels, events=[EVENT] * struck)


@pytest.mark.parametrize(
    ("one", "picture", "sound", "expected"),
    [
        (clip(), [SEA, DOG], [PIANO, SEA], True),
        (clip(), [SEA, PIANO], [PIANO, SEA], False),
        (clip(), [SEA, DOG], [DOG, PIANO], False),
        (clip(music=True), [SEA], [DOG], False),  # Tags know better than held notes.
        (clip(music=True), [SEA], None, True),
        (clip(music=False), None, None, False),
        (clip(music=True), None, None, None),
        (clip(music=None), [SEA], None, None),
        (clip(struck=2), [SEA], [PIANO], False),  # What is struck in view is heard.
        (clip(struck=1), [SEA], [PIANO], True),
        (clip(music=True, struck=4), None, None, False),
    ],
)
def test_a_music_bed_is_music_that_nothing_in_the_picture_makes(
    one: Clip, picture: list[str] | None, sound: list[str] | None, expected: bool | None
) -> None:
    assert hints(one, picture, sound).music_bed is expected


@pytest.mark.parametrize(
    ("one", "picture", "sound", "expected"),
    [
        (clip(), [SEA], [MAN], True),
        (clip(), [SEA, "people eating"], [MAN], False),
        (clip(), None, [MAN], None),
        (clip(), [SEA], None, None),
        (clip(speech=True), [SEA], [DOG], True),  # Measured goes before tags.
        (clip(speech=False), None, [MAN], False),
        (clip(speech=True), [MAN], None, False),
    ],
)
def test_a_voice_over_is_speech_of_nobody_who_is_shown(
    one: Clip, picture: list[str] | None, sound: list[str] | None, expected: bool | None
) -> None:
    assert hints(one, picture, sound).voice_over is expected


def test_nothing_is_laid_over_a_silent_clip() -> None:
    assert hints(a_clip(audio=None), None, None) == Hints(music_bed=False, voice_over=False)


def test_lists_are_of_vggsound_and_others_do_not_tell() -> None:
    for kind in ("music", "speech", "people"):
        assert named(kind) <= set(VGGSOUND)
    assert tells(VGGSOUND)
    assert not tells(load_classes(CLASSES / "av_tight.txt").names)


def test_a_clip_is_tight_or_loose_by_the_nearest_class_of_its_sound() -> None:
    tight, loose = lists()["tight"], lists()["loose"]
    assert tight.isdisjoint(loose)
    assert tight | loose < set(VGGSOUND)
    found = {name: coupling([name, "chopping wood"], VGGSOUND) for name in VGGSOUND}
    assert {name for name, one in found.items() if one == "tight"} == tight
    assert {name for name, one in found.items() if one == "loose"} == loose
    assert coupling(None, VGGSOUND) is None
    assert coupling(["chopping wood"], tuple(tight)) is None
