"""Files whose clock jumps, by recordings put behind one another, and pictures held for long."""

from pathlib import Path

import numpy as np
import pytest

from avdata.encoders.spec import ClipShape
from avdata.errors import MediaError
from avdata.pipeline.measure.dissolves import Transition
from avdata.pipeline.measure.shots import with_jumps
from avdata.pipeline.measure.source import IngestConfig, measure_source
from avdata.pipeline.media.clip import read_clip
from avdata.pipeline.media.limits import MediaLimits
from avdata.pipeline.record import Clip
from avdata.pipeline.sources.clips import clip_media
from avdata.pipeline.sources.copies import LocalCopies
from tests.pipeline.media import (
    HEIGHT,
    WIDTH,
    Coding,
    Image,
    Sound,
    click_time,
    clicks,
    plain,
    textured,
    times_at,
    with_square,
    write_movie,
)

CONFIG = IngestConfig(num_frames=17)
SHAPE = ClipShape(num_frames=17, fps=16, height=HEIGHT, width=WIDTH)
FPS, COUNT = 24, 36
SECONDS = COUNT / FPS
HIT_S = 0.5


PICTURES = [with_square(textured(0), 2 * k, 20) for k in range(COUNT)]
"""A square that walks; there is nothing that shows where the next recording begins."""


def number_of(image: Image) -> int:
    return int(np.argmin([np.abs(image.astype(int) - one).mean() for one in PICTURES]))


def recording(path: Path, start_s: float) -> bytes:
    """Of the pictures, and a click half a second after its begin."""
    sound = Sound(clicks([HIT_S], SECONDS), start_s)
    times = times_at(FPS, COUNT, start_s)
    return write_movie(path, PICTURES, times, sound, Coding(b_frames=2)).read_bytes()


def joined(folder: Path, *starts_s: float) -> Path:
    path = folder / "joined.ts"
    parts = [recording(folder / "a.ts", at) for at in starts_s]
    path.write_bytes(b"".join(parts))
    return path


def measured(path: Path) -> list[Clip]:
    return measure_source(path, str(path), CONFIG)


@pytest.mark.parametrize("starts_s", [(10, 36_010), (3600, 10), (10, 200, 500)])
def test_a_jump_of_the_clock_is_no_time_and_ends_a_shot(
    tmp_path: Path, starts_s: tuple[float, ...]
) -> None:
    path = joined(tmp_path, *starts_s)
    clips = measured(path)
    assert [clip.shot for clip in clips] == list(range(len(starts_s)))
    media = clips[0].media
    assert "timestamps_jump" in media.flags
    assert not {"truncated", "timestamps_out_of_order"} & set(media.flags)
    assert media.duration_s == pytest.approx(SECONDS * len(starts_s), abs=0.01)
    assert media.fps == pytest.approx(FPS, rel=0.01)
    assert not media.vfr
    for k, clip in enumerate(clips):
        assert clip.start_s == pytest.approx(SECONDS * k, abs=0.01)
        found = clip_media(clip, SHAPE, LocalCopies(1.0))
        numbers = [number_of(image) for image in found.frames]
        np.testing.assert_allclose(numbers, FPS * np.arange(17) / 16, atol=0.51)
        assert click_time(found.samples) == pytest.approx(HIT_S, abs=0.03)
        assert clip.audio is not None
        assert clip.audio.onsets_s == pytest.approx([click_time(found.samples)], abs=0.01)


def test_the_wrap_of_a_clock_of_33_bits_is_no_jump(tmp_path: Path) -> None:
    clips = measured(joined(tmp_path, 2**33 / 90_000 - 2 * SECONDS, 2**33 / 90_000 - SECONDS))
    assert len(clips) == 2
    assert clips[0].media.duration_s == pytest.approx(2 * SECONDS, abs=0.1)
    assert "timestamps_jump" not in clips[0].media.flags


@pytest.mark.parametrize(("name", "sounds"), [("a.ts", True), ("a.mkv", False), ("a.mp4", False)])
def test_a_picture_held_for_long_is_no_jump(tmp_path: Path, name: str, sounds: bool) -> None:
    times = [*times_at(FPS, 30), *times_at(FPS, 30, 17.0)]
    sound = Sound(clicks([0.5, 10.0], 18.0)) if sounds else None
    path = write_movie(tmp_path / name, [textured(1)] * 60, times, sound)
    clips = measured(path)
    assert {clip.shot for clip in clips} == {0}
    assert {clip.jumped_s for clip in clips} == {0.0}
    assert len(clips) == int(18.25 / CONFIG.clip_seconds)
    assert "timestamps_jump" not in clips[0].media.flags
    assert read_clip(path, clips[-1].in_file_s, SHAPE).frames.shape[0] == 17


def test_the_last_picture_counts_for_as_long_as_it_is_shown(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "a.mp4", [plain(50)] * 2, [0.0, 40.0])
    end_s = measured(path)[0].media.duration_s
    assert end_s > 40.5
    over = IngestConfig(num_frames=17, limits=MediaLimits(max_seconds=40.5))
    with pytest.raises(MediaError, match="too_long"):
        measure_source(path, "a", over)


def test_at_a_jump_there_is_one_cut_whatever_was_found_there() -> None:
    times = [0.0, 1.0, 2.0, 3.0, 4.0]
    found = [Transition(1, 1), Transition(2, 4)]
    assert with_jumps(found, times, []) == found
    assert with_jumps(found, times, [3.0]) == [Transition(1, 1), Transition(3, 3)]
    assert with_jumps([], times, [9.0]) == []
