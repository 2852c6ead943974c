from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avdata.pipeline.measure.contact import contacts
from avdata.pipeline.measure.frame_motion import FrameMotion
from avdata.pipeline.measure.lockstep import lockstep
from avdata.pipeline.measure.source import IngestConfig, measure_source
from avdata.pipeline.measure.strikes import Strike
from avdata.pipeline.record import Clip
from tests.pipeline.media import (
    Image,
    Sound,
    bouncing_ball,
    clicks,
    textured,
    times_at,
    tone,
    write_movie,
)

FPS = 24.0
SIZE = (180, 320)
CONFIG = IngestConfig(num_frames=17)
HITS = [0.75, 1.5]


def measured(path: Path, pictures: list[Image], sound: Sound) -> list[Clip]:
    write_movie(path, pictures, times_at(FPS, len(pictures)), sound)
    return measure_source(path, "uri", CONFIG)


def struck(*times_s: float) -> list[Strike]:
    """Strikes of one loudness."""
    return [Strike(t, -10.0) for t in times_s]


def moving(*velocities: float) -> list[FrameMotion]:
    """A thing in one cell, by its velocity in every frame."""
    frames = []
    for velocity in velocities:
        grid, share = np.zeros((9, 16, 2), np.float32), np.zeros((9, 16), np.float32)
        grid[4, 8, 1], share[4, 8] = velocity, 0.5 if velocity else 0.0
        frames.append(FrameMotion(grid, share, 0.0))
    return frames


BOUNCE = moving(*[1.0] * 24, *[-1.0] * 24)
TIMES = np.arange(48) / 24


def test_a_contact_needs_a_change_of_velocity_and_an_onset() -> None:
    (event,) = contacts(struck(1.0), TIMES, BOUNCE)
    assert event.t_audio == 1.0
    assert event.t_video == pytest.approx(23 / 24)  # Seen between the flows of frames 23 and 24.
    assert 0 < event.confidence <= 1
    assert (event.x, event.y) == (8.5 / 16, 4.5 / 9)  # The middle of the cell that moves.
    assert contacts([], TIMES, BOUNCE) == []
    assert contacts(struck(0.5, 1.5), TIMES, BOUNCE) == []
    assert contacts(struck(1.0), TIMES, moving(*[1.0] * 48)) == []


def test_a_strike_far_fainter_than_those_around_it_is_none() -> None:
    loud = [Strike(t, -10.0) for t in (0.3, 0.6, 1.6)]
    near, far = ([*loud, Strike(1.0, level)] for level in (-20.0, -30.0))
    assert [event.t for event in contacts(near, TIMES, BOUNCE)] == [1.0]
    assert contacts(far, TIMES, BOUNCE) == []


def test_in_the_dark_and_where_the_flow_explains_nothing_no_thing_is_seen_to_move() -> None:
    dark = [replace(frame, luma=10.0) for frame in BOUNCE]
    invented = [replace(frame, explained=np.zeros((9, 16), np.bool_)) for frame in BOUNCE]
    assert contacts(struck(1.0), TIMES, dark) == []
    assert contacts(struck(1.0), TIMES, invented) == []


def test_what_the_jerk_of_a_camera_leaves_is_no_contact() -> None:
    jerked = [replace(one, camera_speed=3.0 if k == 24 else 0.0) for k, one in enumerate(BOUNCE)]
    steady = [replace(one, camera_speed=3.0) for one in BOUNCE]
    assert contacts(struck(1.0), TIMES, jerked) == []
    assert len(contacts(struck(1.0), TIMES, steady)) == 1


def test_a_thing_that_starts_from_rest_with_the_sound_was_not_struck_in_the_picture() -> None:
    assert contacts(struck(1.0), TIMES, moving(*[0.0] * 24, *[1.0] * 24)) == []
    assert len(contacts(struck(1.0), TIMES, moving(*[1.0] * 24, *[0.0] * 24))) == 1


@pytest.mark.parametrize("others", [[0.9], [1.02], [0.9, 1.02]])
def test_one_change_serves_the_onset_nearest_to_it(others: list[float]) -> None:
    """The change is at 23 / 24 s."""
    (event,) = contacts(struck(*sorted([0.96, *others])), TIMES, BOUNCE)
    assert event.t_audio == 0.96


def strokes(hits_s: list[float], seconds: float, strength: float = 1.0) -> list[FrameMotion]:
    """Weak strokes at these times, in one cell, under stronger random motion in all others."""
    random = np.random.default_rng(0)
    frames = []
    for time in np.arange(round(seconds * 24)) / 24:
        grid = random.normal(0, 0.3 * strength, (9, 16, 2)).astype(np.float32)
        since = min((time - hit for hit in hits_s), key=abs)
        grid[4, 8, 1] += strength * (1.0 if -0.1 < since < 0 else -0.6 if 0 <= since < 0.1 else 0.0)
        frames.append(FrameMotion(grid, np.full((9, 16), 0.3, np.float32), 0.0))
    return frames


@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_sounds_at_other_times_than_the_strokes_are_no_contacts(strength: float) -> None:
    random = np.random.default_rng(1)
    hits = np.cumsum(random.uniform(0.3, 0.7, 30)).tolist()
    times = np.arange(round(24 * (hits[-1] + 1))) / 24
    frames = strokes(hits, hits[-1] + 1, strength)
    elsewhere = np.cumsum(random.uniform(0.3, 0.7, 28)).tolist()
    assert len(contacts(struck(*elsewhere), times, frames)) <= 0.2 * len(elsewhere)


@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_strokes_too_weak_to_stand_out_alone_are_found_by_their_common_step(
    strength: float,
) -> None:
    random = np.random.default_rng(1)
    hits = np.cumsum(random.uniform(0.3, 0.7, 30)).tolist()
    times = np.arange(round(24 * (hits[-1] + 1))) / 24
    frames = strokes(hits, hits[-1] + 1, strength)
    found = {event.t_audio for event in contacts(struck(*hits), times, frames)}
    assert len(found) >= 0.9 * len(hits)


def flashes(hits_s: list[float], seconds: float) -> list[FrameMotion]:
    """Motion in one cell that begins with each of these times."""
    frames = []
    for time in np.arange(round(seconds * 24)) / 24:
        grid, share = np.zeros((9, 16, 2), np.float32), np.zeros((9, 16), np.float32)
        if any(0 <= time - hit < 0.09 for hit in hits_s):
            grid[4, 8, 1], share[4, 8] = 1.0, 0.5
        frames.append(FrameMotion(grid, share, 0.0))
    return frames


def test_what_starts_from_rest_with_every_sound_is_struck_by_nothing() -> None:
    hits = (np.cumsum(np.random.default_rng(1).uniform(0.4, 0.8, 30)) // (1 / 24) / 24).tolist()
    frames = flashes(hits, hits[-1] + 1)
    times = np.arange(len(frames)) / 24
    assert lockstep(hits, times, frames)[0].z > 3
    assert contacts(struck(*hits), times, frames) == []


def test_lockstep_answers_every_onset_and_always_the_same() -> None:
    hits = [0.7 * k + 0.5 for k in range(200)]  # More than two stretches.
    times = np.arange(24 * 141) / 24
    frames = strokes(hits, 141)
    steps = lockstep([-0.5, *hits, 150.0], times, frames)
    assert len(steps) == len(hits) + 2
    assert steps == lockstep([-0.5, *hits, 150.0], times, frames)
    assert steps[0].z == steps[-1].z == 0.0


def test_a_bounce_that_is_heard_is_a_contact_at_its_time(tmp_path: Path) -> None:
    sound = Sound(clicks(HITS, 2.5))
    clips = measured(tmp_path / "a.mp4", bouncing_ball(hits_s=HITS), sound)
    events = [(event, clip) for clip in clips for event in clip.events]
    heard = [event.t_audio + clip.start_s for event, clip in events]
    seen = [event.t_video + clip.start_s for event, clip in events]
    np.testing.assert_allclose(heard, HITS, atol=0.005)
    np.testing.assert_allclose(seen, HITS, atol=1.5 / FPS)
    assert all(clip.labels.contact == bool(clip.events) for clip in clips)
    # The ball is 40 of 320 by 180 pixels; it turns with its upper edge at 102.5 and 20.
    assert [event.x for event, _ in events] == pytest.approx([0.5] * 2, abs=0.1)
    assert [event.y for event, _ in events] == pytest.approx([0.68, 0.22], abs=0.15)
    for event, _ in events:
        assert event.t == event.t_audio
        assert event.lag_ms == pytest.approx(1000 * (event.t_audio - event.t_video))


def test_half_a_contact_is_none(tmp_path: Path) -> None:
    ball, still = bouncing_ball(hits_s=HITS), [textured(7, *SIZE)] * 60
    unheard = measured(tmp_path / "unheard.mp4", ball, Sound(tone(300, 2.5)))
    unseen = measured(tmp_path / "unseen.mp4", still, Sound(clicks(HITS, 2.5)))
    elsewhere = measured(tmp_path / "elsewhere.mp4", ball, Sound(clicks([0.3, 1.15], 2.5)))
    assert [clip.events for clip in (*unheard, *unseen, *elsewhere)] == [[]] * 6
    assert all(clip.labels.motion != "static" for clip in unheard)
    assert all(clip.audio and clip.audio.onsets_s for clip in unseen)
