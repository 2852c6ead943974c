"""Hints that a sound was laid over the picture: a music bed, a voice-over.

They are made of tags, labels and contacts, are not measured against labelled videos, and are None
where these cannot tell.

    music_bed    the sound is music: its nearest class is one of `music.txt`, or without its tags
                 `labels.music` says so; and none of the picture's tags is of `music.txt`; and of
                 the onsets less than MAX_MATCHED are contacts, as what is struck in view is heard
    voice_over   somebody speaks: `labels.speech`, or where that was not measured the nearest class
                 is one of `speech.txt`; and none of the picture's tags is of `people.txt`

Of a silent clip both are False.
"""

from dataclasses import dataclass
from functools import cache

from avdata.pipeline.record import Clip
from avdata.pipeline.semantics import CLASSES, load_classes

MAX_MATCHED = 0.5
"""Share of a clip's onsets."""


@dataclass(frozen=True, slots=True)
class Hints:
    """Of one clip."""

    music_bed: bool | None
    voice_over: bool | None


@cache
def named(kind: str) -> frozenset[str]:
    """The classes that are music, speech or people."""
    return frozenset(load_classes(CLASSES / f"{kind}.txt").names)


def tells(classes: tuple[str, ...]) -> bool:
    """Whether tags of these classes can tell music, speech and people from the rest."""
    return named("music") | named("speech") | named("people") <= set(classes)


def hints(clip: Clip, picture: list[str] | None, sound: list[str] | None) -> Hints:
    """Of a clip with these tags, None where there are none or their classes do not tell."""
    if clip.audio is None or clip.labels.silent:
        return Hints(music_bed=False, voice_over=False)
    music = clip.labels.music if sound is None else sound[0] in named("music")
    speech = clip.labels.speech
    if speech is None and sound is not None:
        speech = sound[0] in named("speech")
    makers = None if picture is None else not named("music").isdisjoint(picture)
    if len(clip.events) >= MAX_MATCHED * max(1, len(clip.audio.onsets_s)):
        makers = True
    speakers = None if picture is None else not named("people").isdisjoint(picture)
    return Hints(_laid_over(music, makers), _laid_over(speech, speakers))


def _laid_over(heard: bool | None, seen: bool | None) -> bool | None:
    if heard is False or seen is True:
        return False
    return None if heard is None or seen is None else True
