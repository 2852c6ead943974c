import wave
from pathlib import Path

import numpy as np
import pytest

from avdata.encoders.spec import ClipShape
from avdata.errors import MediaError
from avdata.pipeline.media import memory
from avdata.pipeline.media.clip import read_clip
from avdata.pipeline.media.limits import MediaLimits
from avdata.pipeline.media.sound import Mono
from avdata.pipeline.media.stream import ANALYSIS_RATE, Picture, SourceStream, opened
from avdata.pipeline.record import Media
from tests.pipeline.media import (
    Coding,
    Sound,
    click_time,
    clicks,
    number_in,
    numbered,
    plain,
    silence,
    times_at,
    tone,
    write_movie,
)


def read(
    path: Path, limits: MediaLimits | None = None
) -> tuple[list[Picture], np.ndarray[tuple[int], np.dtype[np.float32]] | None, Media]:
    with opened(path, 1) as container:
        stream = SourceStream(container, limits or MediaLimits())
        pictures, sound = list(stream.pictures()), stream.sound()
        return pictures, None if sound is None else Mono(sound)[:], stream.media()


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_every_frame_comes_once_in_order_at_its_time(
    tmp_path: Path, name: str, b_frames: int
) -> None:
    times = times_at(24, 40)
    coding = Coding(b_frames=b_frames)
    pictures = [numbered(k) for k in range(40)]
    read_back, _, media = read(write_movie(tmp_path / name, pictures, times, None, coding))
    assert [number_in(picture.rgb(*picture.size)) for picture in read_back] == list(range(40))
    np.testing.assert_allclose([picture.t for picture in read_back], times, atol=0.001)
    assert media.duration_s == pytest.approx(40 / 24, abs=0.002)
    assert media.fps == pytest.approx(24, rel=0.002)
    assert not media.vfr


def test_a_variable_rate_is_seen_and_its_times_are_kept(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.12, 0.14, 0.3, 0.35]
    pictures, _, media = read(write_movie(tmp_path / "a.mp4", [plain(50)] * 6, times))
    np.testing.assert_allclose([picture.t for picture in pictures], times, atol=0.001)
    assert media.vfr


@pytest.mark.parametrize("name", ["a.mov", "a.mkv", "a.ts"])
@pytest.mark.parametrize("late_s", [-0.2, 0.0, 0.3])
def test_the_lag_of_the_sound_is_what_was_written(tmp_path: Path, name: str, late_s: float) -> None:
    zero = max(0.0, -late_s)
    codec = "libmp3lame" if name == "a.ts" else "pcm_s16le"
    sound = Sound(clicks([0.5 - late_s], 1 - late_s), late_s + zero, codec)
    path = write_movie(tmp_path / name, [plain(50)] * 24, times_at(24, 24, zero), sound)
    _, heard, media = read(path)
    assert media.av_lag_ms is not None
    # A lossy codec may begin with a frame of its own priming.
    assert media.av_lag_ms == pytest.approx(1000 * late_s, abs=30 if name == "a.ts" else 1)
    assert heard is not None
    assert click_time(heard[None], ANALYSIS_RATE) == pytest.approx(0.5, abs=0.003)


def test_sound_before_the_first_frame_is_left_out(tmp_path: Path) -> None:
    sound = Sound(clicks([0.1, 0.8], 1.5), codec="pcm_s16le")
    path = write_movie(tmp_path / "a.mov", [plain(50)] * 24, times_at(24, 24, 0.5), sound)
    _, heard, _ = read(path)
    assert heard is not None
    assert click_time(heard[None], ANALYSIS_RATE) == pytest.approx(0.3, abs=0.002)
    assert len(heard) == pytest.approx(ANALYSIS_RATE * 1.0, abs=0.01 * ANALYSIS_RATE)


def test_no_sound_is_none_and_flagged(tmp_path: Path) -> None:
    _, heard, media = read(write_movie(tmp_path / "a.mp4", [plain(50)] * 5, times_at(24, 5)))
    assert heard is None
    assert (media.audio_codec, media.audio_rate, media.av_lag_ms) == (None, None, None)
    assert media.flags == ["no_audio_stream"]


def test_digital_silence_is_sound(tmp_path: Path) -> None:
    sound = Sound(silence(0.5))
    path = write_movie(tmp_path / "a.mp4", [plain(50)] * 12, times_at(24, 12), sound)
    _, heard, media = read(path)
    assert heard is not None
    assert not heard.any()
    assert media.flags == []


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_pictures_and_size_are_as_a_player_shows_them(tmp_path: Path, rotation: int) -> None:
    upright = numbered(0b10110010)
    stored = np.ascontiguousarray(np.rot90(upright, k=-rotation // 90))
    path = write_movie(
        tmp_path / "a.mp4", [stored] * 3, times_at(24, 3), None, Coding(rotation=rotation)
    )
    pictures, _, media = read(path)
    assert (media.height, media.width) == upright.shape[:2]
    assert [number_in(picture.rgb(*picture.size)) for picture in pictures] == [0b10110010] * 3
    assert media.rotation == -rotation % 360


def test_a_cut_off_file_says_so(tmp_path: Path) -> None:
    pictures = [numbered(k % 256) for k in range(240)]
    whole = write_movie(tmp_path / "a.mkv", pictures, times_at(24, 240), Sound(tone(300, 10)))
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    _, _, media = read(cut)
    assert "truncated" in media.flags
    assert media.duration_s < 8
    assert "truncated" not in read(whole)[2].flags


def test_damaged_bytes_are_counted_not_fatal(tmp_path: Path) -> None:
    pictures = [numbered(k) for k in range(48)]
    whole = write_movie(tmp_path / "a.ts", pictures, times_at(24, 48), Sound(tone(300, 2)))
    data = bytearray(whole.read_bytes())
    rng = np.random.default_rng(0)
    for at in rng.integers(len(data) // 4, len(data), 200):
        data[at] ^= 0xFF
    whole.write_bytes(data)
    pictures_read, _, media = read(whole)
    assert 0 < len(pictures_read) <= 48
    assert np.all(np.diff([picture.t for picture in pictures_read]) > 0)
    assert media.flags


def test_without_memory_a_refused_packet_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_movie(tmp_path / "a.mp4", [numbered(k) for k in range(48)], times_at(24, 48))
    data = path.read_bytes()
    begin, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    half = (begin + end) // 2
    path.write_bytes(data[:half] + b"\xff" * (end - half) + data[end:])
    assert "decode_errors" in read(path)[2].flags
    monkeypatch.setattr(memory, "ROOM", 1 << 60)
    with pytest.raises(MemoryError):
        read(path)
    with pytest.raises(MemoryError):
        read_clip(path, 0.5, ClipShape(num_frames=17, fps=16, height=64, width=96))


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "empty_file"), (b"hello, I am no video\n" * 99, "not_media")]
)
def test_what_is_no_media_has_a_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(MediaError) as caught:
        read(path)
    assert caught.value.reason == reason
    assert str(tmp_path) not in str(caught.value)


def test_a_playlist_cannot_reach_other_files(tmp_path: Path) -> None:
    secret = write_movie(tmp_path / "secret.ts", [plain(50)] * 5, times_at(24, 5))
    playlist = tmp_path / "a.mp4"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n")
    with pytest.raises(MediaError, match="not_media"):
        read(playlist)
    playlist.write_text(f"ffconcat version 1.0\nfile '{secret.name}'\n")
    with pytest.raises(MediaError, match="not_media"):
        read(playlist)


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(b"\0\0" * 800)
    with pytest.raises(MediaError, match="no_video_stream"):
        read(path)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (MediaLimits(max_seconds=0.5), "too_long"),
        (MediaLimits(max_pixels=1000), "picture_too_large"),
    ],
)
def test_beyond_a_limit_is_an_error(tmp_path: Path, limits: MediaLimits, reason: str) -> None:
    path = write_movie(tmp_path / "a.mp4", [plain(50)] * 24, times_at(24, 24))
    with pytest.raises(MediaError, match=reason):
        read(path, limits)


def test_a_file_with_only_damaged_packets_gives_no_frame(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "a.mp4", [plain(50)] * 5, times_at(24, 5))
    data = path.read_bytes()
    begin = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4
    path.write_bytes(data[:begin] + b"\xff" * (end - begin) + data[end:])
    with pytest.raises(MediaError, match="no_frame_decoded"):
        read(path)
