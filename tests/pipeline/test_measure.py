from pathlib import Path

import numpy as np
import pytest
from jaxtyping import UInt8
from numpy import ndarray

from avdata.errors import MediaError
from avdata.pipeline.measure.contact import contacts
from avdata.pipeline.measure.lockstep import lockstep
from avdata.pipeline.measure.motion import FlowMeter, FrameMotion, motion, motion_label
from avdata.pipeline.measure.sound import onsets
from avdata.pipeline.measure.source import IngestConfig, clip_starts, measure_source
from avdata.pipeline.measure.technical import frame_exposure, technical
from avdata.pipeline.record import Clip
from tests.pipeline.media import (
    RATE,
    Image,
    Sound,
    bouncing_ball,
    clicks,
    plain,
    silence,
    textured,
    times_at,
    tone,
    with_square,
    write_movie,
)

FPS = 24.0
SIZE = (180, 320)
CONFIG = IngestConfig(num_frames=17)
HITS = [0.75, 1.5]


def flow(pictures: list[Image]) -> list[FrameMotion]:
    meter = FlowMeter()
    return [meter.add(np.ascontiguousarray(image[..., 0]), 1 / FPS) for image in pictures]


def label(pictures: list[Image]) -> str:
    return motion_label(motion(flow(pictures)))


def panned(steps: int, pixels: int) -> list[Image]:
    height, width = SIZE
    wide = textured(1, height, width + steps * pixels)
    return [wide[:, k * pixels : k * pixels + width] for k in range(steps)]


def flying(steps: int, pixels: float) -> list[Image]:
    return [with_square(textured(1, *SIZE), 20 + k * pixels, 70, 40) for k in range(steps)]


def measured(path: Path, pictures: list[Image], sound: Sound | None = None) -> list[Clip]:
    write_movie(path, pictures, times_at(FPS, len(pictures)), sound)
    return measure_source(path, "uri", CONFIG)


# Motion.


def test_nothing_moves_in_a_still_picture_nor_in_a_little_noise() -> None:
    still = [textured(1, *SIZE)] * 12
    rng = np.random.default_rng(0)
    grainy = [
        (image + rng.integers(-2, 3, image.shape[:2])[..., None]).clip(0, 255).astype(np.uint8)
        for image in still
    ]
    assert label(still) == label(grainy) == "static"
    assert motion(flow(still)).moving_share == 0


def test_a_pan_is_the_camera_and_no_motion() -> None:
    found = motion(flow(panned(12, 3)))
    assert motion_label(found) == "static"
    assert found.camera_speed == pytest.approx(3 * FPS / SIZE[0], rel=0.1)


def test_a_thing_that_moves_before_a_still_camera_is_motion() -> None:
    found = motion(flow(flying(12, 4)))
    assert motion_label(found) != "static"
    assert found.camera_speed < 0.02
    assert 0 < found.moving_share < 0.3


def test_velocity_has_the_direction_and_speed_of_the_thing() -> None:
    frames = flow(flying(12, 4))
    velocity = np.stack([frame.velocity for frame in frames[2:]])
    share = np.stack([frame.moving for frame in frames[2:]])
    mean = (velocity * share[..., None]).sum(axis=(0, 1, 2)) / share.sum()
    assert mean[0] == pytest.approx(4 * FPS / SIZE[0], rel=0.5)
    assert abs(mean[1]) < 0.2 * mean[0]


def test_faster_is_more() -> None:
    slow, fast = motion(flow(flying(12, 2))), motion(flow(flying(12, 6)))
    assert fast.peak > slow.peak
    assert fast.mean > slow.mean


# Sound.


@pytest.mark.parametrize("at", [[0.3], [0.211, 0.5, 0.777, 1.204], [0.5, 0.6]])
@pytest.mark.parametrize("bed", ["nothing", "tone", "noise"])
def test_onsets_are_where_the_clicks_are(at: list[float], bed: str) -> None:
    sound = clicks(at, 1.5)[0]
    if bed == "tone":
        sound = sound + 0.1 * tone(200, 1.5)[0]
    elif bed == "noise":
        sound = sound + 0.002 * np.random.default_rng(1).standard_normal(len(sound))
    found = onsets(sound.astype(np.float32), RATE)
    np.testing.assert_allclose(found, at, atol=0.005)


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_onsets_do_not_depend_on_the_rate(rate: int) -> None:
    sound = np.zeros(rate, np.float32)
    sound[rate // 4 : rate // 4 + 200] = np.random.default_rng(0).uniform(-0.5, 0.5, 200)
    np.testing.assert_allclose(onsets(sound, rate), [0.25], atol=0.005)


def test_a_steady_sound_has_no_onsets() -> None:
    rng = np.random.default_rng(0)
    steady = [
        silence(1.5)[0],
        tone(440, 1.5)[0][2000:],
        (0.1 * rng.standard_normal(RATE)).astype(np.float32),
        np.zeros(10, np.float32),
    ]
    for sound in steady:
        assert [t for t in onsets(sound, RATE) if t > 0.05] == []


# Exposure.


def luma(level: int) -> UInt8[ndarray, "h w"]:
    return plain(level)[..., 0]


def test_exposure_is_in_zero_to_one() -> None:
    white, black = frame_exposure(luma(255), None), frame_exposure(luma(0), luma(255))
    assert (white.mean, white.std, black.mean, black.change) == (1.0, 0.0, 0.0, 1.0)
    both = technical([white, black], [], None)
    assert (both.luma_mean, both.black_share, both.frozen_share) == (0.5, 0.5, 0.0)


def test_a_frame_that_repeats_is_frozen() -> None:
    levels = [10, 10, 10, 90, 90]
    frames = [
        frame_exposure(luma(level), luma(before) if before is not None else None)
        for before, level in zip([None, *levels], levels, strict=False)
    ]
    assert technical(frames, [], None).frozen_share == pytest.approx(3 / 4)
    assert technical(frames[:1], [], None).frozen_share == 0


# Clips of a shot.


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("length", [0.5, 1.0624, 1.0626, 3.0, 10.7])
def test_clips_tile_a_shot_without_overlap(length: float, at_end: bool) -> None:
    starts = clip_starts(2.0, 2.0 + length, CONFIG, at_end=at_end)
    np.testing.assert_allclose(np.diff(starts), CONFIG.clip_seconds)
    slack = 0.5 / CONFIG.fps if at_end else 0.002
    if starts:
        assert starts[0] == 2.0
        assert starts[-1] + CONFIG.clip_seconds <= 2.0 + length + slack
    left = length - len(starts) * CONFIG.clip_seconds
    assert left < CONFIG.clip_seconds


# Contact.


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
    (event,) = contacts([1.0], TIMES, BOUNCE)
    assert event.t_audio == 1.0
    assert event.t_video == pytest.approx(23 / 24)  # Seen between the flows of frames 23 and 24.
    assert 0 < event.confidence <= 1
    assert contacts([], TIMES, BOUNCE) == []
    assert contacts([0.5, 1.5], TIMES, BOUNCE) == []
    assert contacts([1.0], TIMES, moving(*[1.0] * 48)) == []


def test_a_thing_that_starts_from_rest_with_the_sound_was_not_struck_in_the_picture() -> None:
    assert contacts([1.0], TIMES, moving(*[0.0] * 24, *[1.0] * 24)) == []
    assert len(contacts([1.0], TIMES, moving(*[1.0] * 24, *[0.0] * 24))) == 1


def test_one_change_serves_one_onset() -> None:
    assert len(contacts([0.98, 1.02], TIMES, BOUNCE)) == 1


def strokes(hits_s: list[float], seconds: float) -> list[FrameMotion]:
    """Weak strokes at these times, in one cell, under stronger random motion in all others."""
    random = np.random.default_rng(0)
    frames = []
    for time in np.arange(round(seconds * 24)) / 24:
        grid = random.normal(0, 0.3, (9, 16, 2)).astype(np.float32)
        since = min((time - hit for hit in hits_s), key=abs)
        grid[4, 8, 1] += 1.0 if -0.1 < since < 0 else -0.6 if 0 <= since < 0.1 else 0.0
        frames.append(FrameMotion(grid, np.full((9, 16), 0.3, np.float32), 0.0))
    return frames


def test_strokes_too_weak_to_stand_out_alone_are_found_by_their_common_step() -> None:
    random = np.random.default_rng(1)
    hits = np.cumsum(random.uniform(0.3, 0.7, 30)).tolist()
    times = np.arange(round(24 * (hits[-1] + 1))) / 24
    frames = strokes(hits, hits[-1] + 1)
    found = {event.t_audio for event in contacts(hits, times, frames)}
    assert len(found) >= 0.9 * len(hits)
    elsewhere = np.cumsum(random.uniform(0.3, 0.7, 28)).tolist()
    assert len(contacts(elsewhere, times, frames)) <= 0.2 * len(elsewhere)


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
    for event, _ in events:
        assert event.lag_ms == pytest.approx(1000 * (event.t_audio - event.t_video))


def test_half_a_contact_is_none(tmp_path: Path) -> None:
    ball, still = bouncing_ball(hits_s=HITS), [textured(7, *SIZE)] * 60
    unheard = measured(tmp_path / "unheard.mp4", ball, Sound(tone(300, 2.5)))
    unseen = measured(tmp_path / "unseen.mp4", still, Sound(clicks(HITS, 2.5)))
    elsewhere = measured(tmp_path / "elsewhere.mp4", ball, Sound(clicks([0.3, 1.15], 2.5)))
    assert [clip.events for clip in (*unheard, *unseen, *elsewhere)] == [[]] * 6
    assert all(clip.labels.motion != "static" for clip in unheard)
    assert all(clip.audio and clip.audio.onsets_s for clip in unseen)


# Sources.


def test_clips_lie_inside_shots_and_on_the_sources_clock(tmp_path: Path) -> None:
    first, second = textured(2, low=10, high=90), textured(3, low=120, high=250)
    clips = measured(tmp_path / "a.mp4", [first] * 30 + [second] * 60)
    cut = 30 / FPS
    assert [(clip.shot, clip.start_s) for clip in clips] == [
        (0, 0.0),
        (1, pytest.approx(cut)),
        (1, pytest.approx(cut + CONFIG.clip_seconds)),
    ]
    assert all(clip.end_s - clip.start_s == pytest.approx(CONFIG.clip_seconds) for clip in clips)
    assert clips[0].technical.luma_mean < clips[1].technical.luma_mean
    assert len({clip.clip_id for clip in clips}) == 3


def test_a_flash_of_cut_is_no_contact(tmp_path: Path) -> None:
    """Flow across a cut is no motion, even with a click at the cut."""
    first, second = textured(2, low=10, high=90), textured(3, low=120, high=250)
    sound = Sound(clicks([30 / FPS], 90 / FPS))
    clips = measured(tmp_path / "a.mp4", [first] * 30 + [second] * 60, sound)
    assert [clip.events for clip in clips] == [[]] * 3


@pytest.mark.parametrize(
    ("sound", "silent", "heard"),
    [(None, True, False), (Sound(silence(1.5)), True, True), (Sound(tone(300, 1.5)), False, True)],
)
def test_silent_is_no_sound_or_none_to_hear(
    tmp_path: Path, sound: Sound | None, silent: bool, heard: bool
) -> None:
    (clip,) = measured(tmp_path / "a.mp4", [textured(1)] * 36, sound)
    assert clip.labels.silent == silent
    assert (clip.audio is not None) == heard


def test_ids_are_of_the_bytes_and_the_span_not_of_the_name(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "a.mp4", [textured(1)] * 60, times_at(FPS, 60))
    copy = tmp_path / "b.mp4"
    copy.write_bytes(path.read_bytes())
    one, same = measure_source(path, "one", CONFIG), measure_source(copy, "other", CONFIG)
    longer = measure_source(path, "one", IngestConfig(num_frames=33))
    assert [clip.clip_id for clip in one] == [clip.clip_id for clip in same]
    assert not {clip.clip_id for clip in one} & {clip.clip_id for clip in longer}


def test_so_many_clips_of_a_source_and_no_more(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "a.mp4", [textured(1)] * 60, times_at(FPS, 60))
    whole = measure_source(path, "uri", CONFIG)
    one = measure_source(path, "uri", IngestConfig(num_frames=17, max_clips_per_source=1))
    assert len(whole) == 2
    assert one == whole[:1]


def test_a_source_shorter_than_a_clip_says_how_short(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "a.mp4", [textured(1)] * 12, times_at(FPS, 12))
    with pytest.raises(MediaError, match=r"shorter_than_a_clip.*0\.50 s.*1\.06 s"):
        measure_source(path, "uri", CONFIG)


def test_settings_that_would_give_other_rows_have_another_fingerprint() -> None:
    configs = [
        IngestConfig(),
        IngestConfig(num_frames=17),
        IngestConfig(fps=24),
        IngestConfig(max_clips_per_source=3),
    ]
    assert len({config.fingerprint for config in configs}) == len(configs)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="num_frames must be 4k"):
        IngestConfig(num_frames=32)
    with pytest.raises(ValueError, match="fps must be at least 1"):
        IngestConfig(fps=0)
