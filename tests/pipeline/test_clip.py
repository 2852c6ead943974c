from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from avdata.encoders.spec import ClipShape
from avdata.errors import MediaError
from avdata.pipeline.media.clip import read_clip
from tests.pipeline.media import (
    HEIGHT,
    WIDTH,
    Coding,
    Sound,
    click_time,
    clicks,
    number_in,
    numbered,
    plain,
    times_at,
    tone,
    write_movie,
)

SHAPE = ClipShape(num_frames=17, fps=16, height=HEIGHT, width=WIDTH)


def numbered_movie(path: Path, fps: float, count: int, coding: Coding | None = None) -> Path:
    return write_movie(
        path, [numbered(k) for k in range(count)], times_at(fps, count), None, coding
    )


def numbers(path: Path, start_s: float, shape: ClipShape = SHAPE) -> list[int]:
    return [number_in(frame) for frame in read_clip(path, start_s, shape).frames]


@pytest.mark.parametrize("fps", [12, 24, 29.97, 60])
@pytest.mark.parametrize("num_frames", [1, 17])
def test_the_counts_are_exact_whatever_the_source(
    tmp_path: Path, fps: float, num_frames: int
) -> None:
    shape = ClipShape(num_frames=num_frames, fps=16, height=32, width=48)
    count = round(2 * fps)
    sound = Sound(tone(440, 2), start_s=0.2)
    path = write_movie(tmp_path / "a.mp4", [plain(99)] * count, times_at(fps, count), sound)
    clip = read_clip(path, 0.3, shape)
    assert clip.frames.shape == (num_frames, 32, 48, 3)
    assert clip.samples.shape == (2, shape.num_samples)
    assert np.abs(clip.samples).max(initial=0) <= 1


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "aac"),
        ("a.mov", "pcm_s16le"),
        ("a.mkv", "flac"),
        ("a.mkv", "aac"),
        ("a.ts", "aac"),
    ],
)
@pytest.mark.parametrize("sound_start_s", [-0.2, 0.0, 0.35])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_what_happens_together_comes_out_together(
    tmp_path: Path, name: str, codec: str, sound_start_s: float, b_frames: int
) -> None:
    flash_s = 1.0
    # A file whose sound starts first, without negative times.
    zero = max(0.0, -sound_start_s)
    pictures = [plain(250 if k == 24 else 20) for k in range(48)]
    heard = Sound(
        clicks([flash_s - sound_start_s], 2 - sound_start_s), sound_start_s + zero, codec=codec
    )
    coding = Coding(b_frames=b_frames)
    path = write_movie(tmp_path / name, pictures, times_at(24, 48, zero), heard, coding)
    clip = read_clip(path, 0.5, SHAPE)
    flash = int(clip.frames.mean(axis=(1, 2, 3)).argmax())
    assert flash / SHAPE.fps == flash_s - 0.5
    assert click_time(clip.samples) == pytest.approx(flash / SHAPE.fps, abs=0.003)


def test_together_with_a_variable_frame_rate_too(tmp_path: Path) -> None:
    steps = np.tile([1 / 30, 1 / 12, 1 / 60, 1 / 20], 12)
    times = [0.0, *np.cumsum(steps).tolist()]
    flash = 22
    pictures = [plain(250 if k == flash else 20) for k in range(len(times))]
    sound = Sound(clicks([times[flash]], times[-1]))
    path = write_movie(tmp_path / "a.mp4", pictures, times, sound)
    clip = read_clip(path, times[flash] - 0.5, SHAPE)
    assert clip.frames.mean(axis=(1, 2, 3)).argmax() == 0.5 * SHAPE.fps
    assert click_time(clip.samples) == pytest.approx(0.5, abs=0.003)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_each_frame_is_the_nearest_in_time(tmp_path: Path, name: str) -> None:
    steps = np.random.default_rng(3).choice([0.02, 0.033, 0.05, 0.09], size=60)
    times = np.array([0.0, *np.cumsum(steps)])
    pictures = [numbered(k) for k in range(len(times))]
    path = write_movie(tmp_path / name, pictures, times.tolist(), None, Coding(b_frames=2))
    wanted = 0.4 + np.arange(SHAPE.num_frames) / SHAPE.fps
    chosen = times[numbers(path, 0.4)]
    nearest = np.abs(times[:, None] - wanted).min(axis=0)
    # Matroska's clock has steps of a millisecond: a tie may go either way.
    np.testing.assert_allclose(np.abs(chosen - wanted), nearest, atol=0.0021)


def test_every_frame_of_a_source_at_the_rate_of_the_clip_comes_once(tmp_path: Path) -> None:
    path = numbered_movie(tmp_path / "a.mp4", 16, 40)
    assert numbers(path, 5 / 16) == list(range(5, 22))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_a_clip_deep_in_a_file_is_what_decoding_from_the_start_gives(
    tmp_path: Path, name: str
) -> None:
    """The whole file as one clip never seeks; a piece of it read alone does."""
    count = 16 * 9
    sound = Sound(clicks([k + 0.7 for k in range(9)], 9))
    coding = Coding(b_frames=2, key_every=20)
    pictures = [numbered(k) for k in range(count)]
    path = write_movie(tmp_path / name, pictures, times_at(16, count), sound, coding)
    whole = read_clip(path, 0.0, ClipShape(129, 16, HEIGHT, WIDTH))
    for first in (24, 65, 100):
        piece = read_clip(path, first / 16, SHAPE)
        np.testing.assert_array_equal(piece.frames, whole.frames[first : first + 17])
        begin = round(first / 16 * SHAPE.sample_rate)
        expected = whole.samples[:, begin : begin + SHAPE.num_samples]
        # Matroska's clock has steps of a millisecond; where decoding begins, one is rounded.
        late = click_time(piece.samples) - click_time(expected)
        assert abs(late) <= (0.0006 if name == "a.mkv" else 0)


def test_the_last_whole_clip_is_there_and_the_next_is_not(tmp_path: Path) -> None:
    path = numbered_movie(tmp_path / "a.mp4", 16, 34)
    assert numbers(path, 17 / 16)[-1] == 33
    with pytest.raises(MediaError) as caught:
        read_clip(path, 19 / 16, SHAPE)
    assert caught.value.reason == "clip_beyond_end"


def test_no_sound_is_silence_of_the_right_length(tmp_path: Path) -> None:
    clip = read_clip(numbered_movie(tmp_path / "a.mp4", 24, 30), 0.0, SHAPE)
    assert clip.samples.shape == (2, SHAPE.num_samples)
    assert not clip.samples.any()


def test_sound_that_ends_early_is_followed_by_silence(tmp_path: Path) -> None:
    sound = Sound(tone(300, 0.5), codec="pcm_s16le")
    path = write_movie(tmp_path / "a.mov", [plain(90)] * 48, times_at(24, 48), sound)
    samples = read_clip(path, 0.0, SHAPE).samples
    half = SHAPE.sample_rate // 2
    np.testing.assert_allclose(samples[:, :half], tone(300, 0.5)[:, :half], atol=1e-3)
    assert not samples[:, half:].any()


def test_a_picture_on_its_side_is_shown_upright(tmp_path: Path) -> None:
    """Stored turned, with the order to turn it back, it is the picture again."""
    upright = numbered(0b10110010, height=96, width=64)
    stored = np.ascontiguousarray(np.rot90(upright, k=-1))
    path = write_movie(
        tmp_path / "a.mp4", [stored] * 30, times_at(24, 30), None, Coding(rotation=90)
    )
    clip = read_clip(path, 0.0, ClipShape(17, 16, 96, 64))
    assert {number_in(frame) for frame in clip.frames} == {0b10110010}


def test_wide_pixels_are_made_square(tmp_path: Path) -> None:
    """64 x 48 pixels twice as wide as high show a picture of 64 x 96: nothing is cropped."""
    coding = Coding(pixel_aspect=Fraction(2))
    pictures = [numbered(0b01101101, width=48)] * 30
    path = write_movie(tmp_path / "a.mp4", pictures, times_at(24, 30), None, coding)
    clip = read_clip(path, 0.0, SHAPE)
    assert {number_in(frame) for frame in clip.frames} == {0b01101101}


def test_a_crop_keeps_the_centre(tmp_path: Path) -> None:
    picture = plain(30)
    picture[:, WIDTH // 2 - 8 : WIDTH // 2 + 8] = 240
    path = write_movie(tmp_path / "a.mp4", [picture] * 30, times_at(24, 30))
    frame = read_clip(path, 0.0, ClipShape(17, 16, 32, 16)).frames[0].mean(axis=(0, 2))
    np.testing.assert_allclose(frame, frame[::-1], atol=12)
    assert frame[8] > 200
    assert frame[0] < 100
