"""A few of the files of `benchmarks/time.py`, one a way in which time can be lost."""

from pathlib import Path

import numpy as np
import pytest

from avdata.encoders.spec import ClipShape
from avdata.errors import RunError
from avdata.pipeline.media.clip import ClipMedia, read_clip
from avdata.pipeline.media.clip_file import own_shape, write_clip
from avdata.pipeline.media.limits import MediaLimits
from avdata.pipeline.media.stream import SourceStream, opened
from avdata.pipeline.media.write import SoundCodec
from avdata.pipeline.record import Media
from avdata.pipeline.world.flashes import HEIGHT, WIDTH, FlashFile, click_times, write_flashes

SHAPE = ClipShape(33, 16, HEIGHT, WIDTH)
CASES = [
    FlashFile(seconds=3),
    FlashFile("mov", audio_codec="pcm_s16le", sound_start_s=-0.2, seconds=3),
    FlashFile("mkv", rate=44_100, variable=True, sound_start_s=0.12, seconds=3),
    FlashFile("ts", rate=44_100, sound_start_s=0.12, seconds=3),
    FlashFile(sound_start_s=0.12, seconds=3),
    FlashFile(cut_s=0.7, audio_codec="flac", seconds=4),
    FlashFile("webm", "libvpx", "libopus", b_frames=0, seconds=3),
    FlashFile("avi", "mpeg4", "pcm_s16le", b_frames=0, seconds=3),
]


def facts(path: Path) -> tuple[int, Media]:
    with opened(path, threads=1) as container:
        stream = SourceStream(container, MediaLimits())
        return sum(1 for _ in stream.pictures()), stream.media()


@pytest.mark.parametrize("made", CASES, ids=lambda made: f"{made.suffix}-{made.audio_codec}")
def test_a_click_comes_with_its_flash(tmp_path: Path, made: FlashFile) -> None:
    path, copy = tmp_path / f"a.{made.suffix}", tmp_path / "clip.mp4"
    write_flashes(path, made)
    num_frames, media = facts(path)
    assert num_frames == len(made.times)
    # Matroska counts milliseconds.
    assert media.av_lag_ms == pytest.approx(1000 * made.sound_start_s, abs=2) or made.cut_s
    clip = read_clip(path, 0.25, SHAPE)
    found = write_clip(copy, clip, SHAPE, "flac")
    again = read_clip(copy, 0.0, SHAPE)
    assert found.num_frames == len(clip.frames) == len(again.frames) == 33
    assert found.num_samples == clip.samples.shape[1] == again.samples.shape[1] == 88_200
    flashes = [flash - float(made.times[0]) - 0.25 for flash in made.flashes]
    inside = [flash for flash in flashes if 0.05 < flash < 1.95]
    assert inside
    for read in (clip, again):
        late = click_times(read.samples, SHAPE.sample_rate, inside) - inside
        assert np.abs(late).max() <= 0.001


@pytest.mark.parametrize("codec", ["flac", "aac"])
def test_a_clip_file_holds_what_was_given(tmp_path: Path, codec: SoundCodec) -> None:
    rng = np.random.default_rng(0)
    shape = ClipShape(17, 16, 48, 64)
    frames = np.repeat(rng.integers(40, 200, (17, 6, 8, 3)), 8, 1).repeat(8, 2).astype(np.uint8)
    samples = (0.1 * rng.standard_normal((2, shape.num_samples))).astype(np.float32)
    found = write_clip(tmp_path / "a.mp4", ClipMedia(frames, samples), shape, codec)
    assert found.lag_ms == 0
    assert found.duration_s == pytest.approx(17 / 16, abs=1e-4)
    if codec == "flac":
        assert found.num_samples == shape.num_samples
        again = read_clip(tmp_path / "a.mp4", 0.0, shape)
        np.testing.assert_allclose(again.samples, samples, atol=1e-4)


def test_a_clip_file_that_lost_something_is_not_kept(tmp_path: Path) -> None:
    short = ClipMedia(np.zeros((16, 48, 64, 3), np.uint8), np.zeros((2, 44_100), np.float32))
    with pytest.raises(RunError, match="16 frames, not 17"):
        write_clip(tmp_path / "a.mp4", short, ClipShape(17, 16, 48, 64), "flac")
    assert list(tmp_path.iterdir()) == []


def test_a_clip_keeps_its_own_size_up_to_a_bound() -> None:
    wanted = ClipShape(33, 16)
    own = own_shape((1081, 1920), wanted, None)
    bound = own_shape((1080, 1920), wanted, 640)
    assert (own.height, own.width) == (1080, 1920)
    assert (bound.height, bound.width) == (360, 640)
    assert own.num_samples == wanted.num_samples
