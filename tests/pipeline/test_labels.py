"""Labels, on either side of the limits that docs/manifest.md states."""

import dataclasses

import pytest

from avdata.pipeline.measure.labels import labels
from avdata.pipeline.record import Motion
from tests.pipeline.clips import EVENT, SOUND


def moved(mean: float = 0.0, peak: float = 0.0) -> Motion:
    return Motion(mean=mean, peak=peak, moving_share=0.1, camera_speed=0.0)


@pytest.mark.parametrize(
    ("motion", "label"),
    [
        (moved(10.0, 0.149), "static"),
        (moved(0.0, 0.151), "small"),
        (moved(0.16, 0.159), "small"),
        (moved(0.16, 0.161), "large"),
        (moved(0.0159, 1.6), "small"),  # Fast somewhere, but little of it.
        (moved(0.0161, 1.6), "large"),
    ],
)
def test_motion_is_by_the_peak_and_by_its_geometric_mean_with_the_mean(
    motion: Motion, label: str
) -> None:
    assert labels(motion, SOUND, []).motion == label


@pytest.mark.parametrize(
    ("speech", "tones", "expected"),
    [
        (0.149, 0.301, (False, True)),
        (0.151, 0.299, (True, False)),
        (None, 0.301, (None, True)),
        (0.151, None, (True, None)),
    ],
)
def test_speech_and_music_are_shares_of_the_time(
    speech: float | None, tones: float | None, expected: tuple[bool | None, bool | None]
) -> None:
    heard = dataclasses.replace(SOUND, speech_share=speech, tonal_share=tones)
    found = labels(moved(), heard, [])
    assert (found.speech, found.music) == expected


@pytest.mark.parametrize(("loudest", "silent"), [(-50.1, True), (-49.9, False)])
def test_silent_is_by_the_loudest_moment(loudest: float, silent: bool) -> None:
    heard = dataclasses.replace(SOUND, loudest_dbfs=loudest, rms_dbfs=-70.0)
    found = labels(moved(), heard, [])
    assert (found.silent, found.contact) == (silent, False)
    struck = labels(moved(), heard, [EVENT])
    assert (struck.silent, struck.contact) == (False, True)
