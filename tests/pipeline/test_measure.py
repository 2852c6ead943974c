import os
from pathlib import Path

import numpy as np
import pytest

from avdata.errors import MediaError
from avdata.pipeline.measure import source
from avdata.pipeline.measure.sound import onsets
from avdata.pipeline.measure.source import IngestConfig, clip_starts, measure_source
from avdata.pipeline.measure.technical import frame_exposure, frozen_share, technical
from avdata.pipeline.media import stream
from avdata.pipeline.media.alive import told
from avdata.pipeline.media.stream import Picture
from avdata.pipeline.record import Clip
from tests.pipeline.media import (
    RATE,
    Image,
    Sound,
    clicks,
    picture,
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


def measured(path: Path, pictures: list[Image], sound: Sound | None = None) -> list[Clip]:
    write_movie(path, pictures, times_at(FPS, len(pictures)), sound)
    return measure_source(path, "uri", CONFIG)


# Motion.


@pytest.mark.parametrize("size", [(24, 24), (60, 640), (640, 60), (180, 320)])
def test_pictures_of_every_shape_are_measured(size: tuple[int, int], tmp_path: Path) -> None:
    height, width = size
    wide = textured(1, height, width + 2 * 48)
    pictures = [wide[:, 2 * k : 2 * k + width] for k in range(48)]
    assert measured(tmp_path / "a.mp4", pictures)


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


def level_picture(level: int) -> Picture:
    return picture(0.0, plain(level))


def test_exposure_is_in_zero_to_one() -> None:
    white, black = (
        frame_exposure(level_picture(255), None),
        frame_exposure(level_picture(0), level_picture(255)),
    )
    assert (white.mean, white.std, black.mean, black.change) == (1.0, 0.0, 0.0, 1.0)
    both = technical([white, black], 0.0, [], None)
    assert (both.luma_mean, both.luma_std, both.black_share) == (0.5, 0.0, 0.5)


@pytest.mark.parametrize(("level", "black"), [(0, 1.0), (15, 1.0), (17, 0.0), (100, 0.0)])
def test_black_is_as_dark_as_video_black(level: int, black: float) -> None:
    frames = [frame_exposure(level_picture(level), None)] * 3
    found = technical(frames, 0.0, [], None)
    assert found.black_share == black
    assert found.luma_mean == pytest.approx(level / 255)


def test_contrast_is_the_spread_within_a_frame_and_not_between_them() -> None:
    image = plain(0)
    image[:, : image.shape[1] // 4] = 255  # A quarter is white.
    spread = technical([frame_exposure(picture(0.0, image), None)] * 2, 0.0, [], None)
    assert spread.luma_mean == pytest.approx(0.25, abs=0.01)
    assert spread.luma_std == pytest.approx(0.433, abs=0.01)


def frozen(levels: list[int], times: list[float], start: float, end: float) -> float:
    before = [None, *map(level_picture, levels[:-1])]
    frames = [
        frame_exposure(level_picture(level), one) for one, level in zip(before, levels, strict=True)
    ]
    return frozen_share(frames, np.array([*times, end]), start)


def test_a_frame_that_repeats_is_frozen_for_as_long_as_it_is_shown() -> None:
    assert frozen([10, 10, 90, 90], [0, 0.1, 0.2, 0.3], 0, 0.4) == pytest.approx(2 / 4)
    assert frozen([10, 11, 12, 13], [0, 0.1, 0.2, 0.3], 0, 0.4) == pytest.approx(3 / 4)
    assert frozen([10, 13, 16, 19], [0, 0.1, 0.2, 0.3], 0, 0.4) == 0
    assert frozen([10, 90, 90], [0, 0.1, 0.2], 0, 0.7) == pytest.approx(5 / 7)
    assert frozen([10, 90], [0, 0.2], 0, 0.4) == 0


def test_a_picture_that_is_held_is_frozen_though_nothing_repeats_it() -> None:
    assert frozen([10], [0], 0, 2) == pytest.approx(1.75 / 2)
    assert frozen([10], [0], 5, 7) == 1  # It was there long before.
    assert frozen([10, 90], [0, 1], 0.5, 1.5) == pytest.approx(0.75)


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


def test_a_still_picture_is_frozen_from_the_frame_after_its_first(tmp_path: Path) -> None:
    first, second = textured(2, low=10, high=90), textured(3, low=120, high=250)
    clips = measured(tmp_path / "a.mp4", [first] * 30 + [second] * 60)
    shares = [clip.technical.frozen_share for clip in clips]
    length = CONFIG.clip_seconds * FPS
    assert shares == pytest.approx([1 - 1 / length, 1 - 1 / length, 1], abs=0.01)


def test_clips_of_a_slide_show_hold_one_slide_and_are_frozen(tmp_path: Path) -> None:
    slides = [textured(100 + k, *SIZE) for k in range(6)]
    path = write_movie(
        tmp_path / "a.mkv", slides, [2.5 * k for k in range(6)], Sound(tone(300, 15))
    )
    clips = measure_source(path, "uri", CONFIG)
    assert {clip.start_s // 2.5 for clip in clips} >= {0, 1, 2, 3, 4}
    for clip in clips:
        assert clip.start_s // 2.5 == (clip.end_s - 0.01) // 2.5
        assert clip.technical.frozen_share > 0.7


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


def test_rows_do_not_depend_on_how_many_frames_are_measured_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp4"
    flying = [with_square(textured(1, *SIZE), 20 + 3 * k, 70, 40) for k in range(49)]
    wanted = measured(path, flying, Sound(clicks(HITS, 2.0)))
    for pictures, frames_of_sound in ((1, 1), (7, 3), (49, 1000)):
        monkeypatch.setattr(source, "AT_ONCE", pictures)
        monkeypatch.setattr(stream, "SOUND_AT_ONCE", frames_of_sound)
        assert measure_source(path, "uri", CONFIG) == wanted


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


def test_a_file_that_changes_while_it_is_measured_has_no_clips(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "a.mp4", [plain(50)] * 12, times_at(1, 12))
    assert measure_source(path, "uri", CONFIG)
    after_ten_seconds = told(lambda: os.truncate(path, path.stat().st_size + 1))
    with after_ten_seconds, pytest.raises(MediaError, match="read: changed"):
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
