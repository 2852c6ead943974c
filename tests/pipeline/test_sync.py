"""How late the sound is, from sound and picture alone."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from avdata.pipeline.measure import events
from avdata.pipeline.measure.events import heard_and_seen
from avdata.pipeline.measure.frame_motion import FrameMotion
from avdata.pipeline.measure.motion import FlowMeter
from avdata.pipeline.measure.source import IngestConfig, measure_source
from avdata.pipeline.measure.strikes import Strike
from avdata.pipeline.measure.sync import sync
from avdata.pipeline.record import Sync
from tests.pipeline.media import Sound, bouncing_ball, clicks, times_at, write_movie

FPS = 24.0
HITS = [0.75, 1.3, 2.0, 2.6, 3.4]
CONFIG = IngestConfig(num_frames=17)


def changes(hits_s: list[float], seconds: float) -> tuple[np.ndarray, np.ndarray]:
    times = np.arange(round(seconds * FPS)) / FPS
    jumps = np.random.default_rng(0).uniform(0.05, 0.2, len(times))
    for hit in hits_s:
        jumps[round(hit * FPS)] = 2.0
    return times, jumps


@pytest.mark.parametrize("late_s", [0.0, 0.12, -0.2, 0.65, -0.9])
def test_a_delay_is_measured_back(late_s: float) -> None:
    found = sync([hit + late_s for hit in HITS], *changes(HITS, 5))
    assert found is not None
    assert found.lag_ms == pytest.approx(1000 * late_s, abs=1000 / FPS)
    assert found.confidence > 0.5


def test_one_change_far_larger_than_all_others_does_not_decide() -> None:
    times, jumps = changes(HITS, 5)
    jumps[round((HITS[1] + 0.5) * FPS)] = 1000.0
    found = sync(HITS, times, jumps)
    assert found is not None
    assert found.lag_ms == pytest.approx(0, abs=1000 / FPS)
    assert found.confidence > 0.5


@pytest.mark.parametrize(("confidence", "late_s"), [(0.51, 0.4), (0.49, 0.0)])
def test_contacts_are_looked_for_at_a_lag_that_is_trusted(
    confidence: float, late_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thing turns once; of a sound then and one 0.4 s later the lag says which is its."""
    meter = FlowMeter()
    for k in range(72):
        velocity, share = np.zeros((9, 16, 2), np.float32), np.zeros((9, 16), np.float32)
        velocity[4, 8, 1], share[4, 8] = (1.0 if k <= 36 else -1.0), 0.5
        meter.times.append(k / FPS)
        meter.motions.append(FrameMotion(velocity, share, 0.0))
    told = Sync(lag_ms=400.0, confidence=confidence)
    monkeypatch.setattr(events, "sync", lambda *_: told)
    heard = [1.5, 1.9]
    found, apart = heard_and_seen([(0.0, 3.0)], heard, [Strike(t, -10.0) for t in heard], meter)
    assert [event.t for event in found] == pytest.approx([1.5 + late_s])
    assert apart == told


def test_what_has_nothing_to_do_with_the_picture_has_no_confidence() -> None:
    random = np.random.default_rng(2)
    scores = []
    for _ in range(20):
        found = sync(sorted(random.uniform(0.5, 9, 12)), *changes(HITS, 10))
        assert found is not None
        scores.append(found.confidence)
    assert np.mean(scores) < 0.3
    regular = sync([0.5 * k for k in range(1, 18)], *changes([0.5 * k for k in range(1, 18)], 10))
    assert regular is not None
    assert regular.confidence < 0.5  # Any beat fits as well as the next.


def test_too_little_to_compare_is_no_lag() -> None:
    times, jumps = changes(HITS, 5)
    assert sync(HITS[:3], times, jumps) is None
    assert sync(HITS, times, np.zeros_like(jumps)) is None
    assert sync(HITS, times[:1], jumps[:1]) is None


def test_contacts_of_a_late_sound_are_found_where_it_is(tmp_path: Path) -> None:
    pictures = bouncing_ball(hits_s=HITS, seconds=4.2)
    clips = {}
    for late_s in (0.0, 0.25):
        path = tmp_path / f"{late_s}.mp4"
        sound = Sound(clicks([hit + late_s for hit in HITS], 4.2))
        write_movie(path, pictures, times_at(FPS, len(pictures)), sound)
        clips[late_s] = measure_source(path, "uri", CONFIG)
    found = [event for clip in clips[0.25] for event in clip.events]
    assert len(found) >= 3
    assert np.median([event.lag_ms for event in found]) == pytest.approx(250, abs=1000 / FPS)
    apart = [clips[late][0].sync for late in (0.0, 0.25)]
    assert apart[0] is not None
    assert apart[1] is not None
    assert apart[1].lag_ms - apart[0].lag_ms == pytest.approx(250, abs=25)
    assert {dataclasses.astuple(clip.sync) for clip in clips[0.25] if clip.sync} == {
        dataclasses.astuple(apart[1])
    }
