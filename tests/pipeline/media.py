"""Small real media files for tests: pictures at given times, sound at a given time, any container.

A picture carries its number as bars, so that what was decoded can be read back after lossy coding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray

from avdata.pipeline.media.stream import Picture

HEIGHT, WIDTH = 64, 96
RATE = 44_100
CLOCK = Fraction(1, 90_000)
BITS = 8

Image = UInt8[ndarray, "h w 3"]


@dataclass(frozen=True, slots=True)
class Sound:
    """Samples and where they begin on the file's clock."""

    samples: Float32[ndarray, "2 m"]
    start_s: float = 0.0
    codec: str = "aac"


@dataclass(frozen=True, slots=True)
class Coding:
    """How the pictures are stored."""

    b_frames: int = 0
    key_every: int = 12
    rotation: int = 0
    """As `av` counts it: counter-clockwise."""
    pixel_aspect: Fraction = Fraction(1)


def write_movie(
    path: Path,
    pictures: Sequence[Image],
    times: Sequence[float],
    sound: Sound | None = None,
    coding: Coding | None = None,
) -> Path:
    """One file, its container by its suffix; answers its path."""
    with av.open(str(path), "w") as out:
        video = _video_stream(out, pictures[0].shape, times, coding or Coding())
        audio = None if sound is None else _audio_stream(out, sound)
        packets = _video_packets(video, pictures, times)
        if sound is not None and audio is not None:
            packets += _audio_packets(audio, sound)
        # In order of time, as a real muxer is fed; a container need not hold it all back.
        for packet in sorted(packets, key=_decoding_time):
            out.mux(packet)
    return path


def times_at(fps: float, count: int, start_s: float = 0.0) -> list[float]:
    return [start_s + k / fps for k in range(count)]


def numbered(number: int, height: int = HEIGHT, width: int = WIDTH) -> Image:
    """Bars, dark or bright, for the bits of a number under 256, the highest on the left."""
    bits = [(number >> bit) & 1 for bit in reversed(range(BITS))]
    row = np.repeat(np.where(bits, 220, 40).astype(np.uint8), width // BITS)
    return np.broadcast_to(row[None, :, None], (height, len(row), 3)).copy()


def number_in(image: Image) -> int:
    bars = np.array_split(image.mean(axis=(0, 2)), BITS)
    return sum(int(bar.mean() > 128) << (BITS - 1 - k) for k, bar in enumerate(bars))


def picture(t: float, image: Image) -> Picture:
    """As a stream gives it, at the image's own size."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    return Picture.of(t, frame, image.shape[:2])


def plain(level: int, height: int = HEIGHT, width: int = WIDTH) -> Image:
    return np.full((height, width, 3), level, np.uint8)


def textured(
    seed: int, height: int = HEIGHT, width: int = WIDTH, low: int = 40, high: int = 200
) -> Image:
    """A picture with detail everywhere: smoothed noise."""
    noise = np.random.default_rng(seed).random((height + 4, width + 4, 1))
    shifts = [(row, column) for row in range(5) for column in range(5)]
    smooth = np.mean([noise[r : r + height, c : c + width] for r, c in shifts], axis=0)
    spread = (smooth - smooth.min()) / np.ptp(smooth)
    return np.repeat((low + (high - low) * spread).astype(np.uint8), 3, axis=2)


def with_square(background: Image, x: float, y: float, side: int = 16, level: int = 250) -> Image:
    image = background.copy()
    left, top = round(x), round(y)
    image[max(0, top) : top + side, max(0, left) : left + side] = level
    return image


def bouncing_ball(
    seconds: float = 2.5, fps: int = 24, hits_s: Sequence[float] = (0.75, 1.5)
) -> list[Image]:
    """A square that flies in straight lines and turns about at each hit, before a still picture."""
    background, speed = textured(7, 180, 320), 110.0
    turns = [0.0, *hits_s]
    images = []
    for t in times_at(fps, round(seconds * fps)):
        y, sign = 20.0, 1.0
        for begin, end in zip(turns, [*turns[1:], seconds], strict=True):
            y += sign * speed * max(0.0, min(t, end) - begin)
            sign = -sign
        images.append(with_square(background, 140, y, side=40))
    return images


def silence(seconds: float) -> Float32[ndarray, "2 m"]:
    return np.zeros((2, round(seconds * RATE)), np.float32)


def clicks(at_s: Sequence[float], seconds: float) -> Float32[ndarray, "2 m"]:
    """Short decaying bursts of noise that begin at the given times, on both channels."""
    sound = np.zeros(round(seconds * RATE), np.float32)
    length = round(0.02 * RATE)
    burst = np.random.default_rng(0).standard_normal(length) * np.exp(-np.arange(length) / 150)
    for t in at_s:
        first = round(t * RATE)
        sound[first : first + length] += 0.25 * burst[: len(sound) - first].astype(np.float32)
    return np.stack([sound, sound]).clip(-1, 1)


def tone(hz: float, seconds: float, amplitude: float = 0.3) -> Float32[ndarray, "2 m"]:
    wave = amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)
    return np.stack([wave, wave]).astype(np.float32)


def click_time(samples: Float[ndarray, "c m"], rate: int = RATE) -> float:
    """Where the loudest sound begins: the first sample of a third of its height."""
    level = np.abs(samples).max(axis=0)
    return int(np.flatnonzero(level > level.max() / 3)[0]) / rate


def _video_stream(
    out: av.container.OutputContainer,
    shape: tuple[int, ...],
    times: Sequence[float],
    coding: Coding,
) -> av.VideoStream:
    fps = round((len(times) - 1) / (times[-1] - times[0])) if len(times) > 1 else 25
    options = {"preset": "ultrafast", "crf": "12", "sc_threshold": "0"}
    stream = out.add_stream("libx264", rate=max(1, fps), options=options)
    context = stream.codec_context
    stream.height, stream.width, stream.pix_fmt = shape[0], shape[1], "yuv420p"
    context.time_base = CLOCK
    context.gop_size = coding.key_every
    context.max_b_frames = coding.b_frames
    context.sample_aspect_ratio = coding.pixel_aspect
    context.thread_count = 1
    if coding.rotation:
        stream.set_display_rotation(coding.rotation)
    return stream


def _audio_stream(out: av.container.OutputContainer, sound: Sound) -> av.AudioStream:
    stream = out.add_stream(sound.codec, rate=RATE)
    assert isinstance(stream, av.AudioStream)
    stream.codec_context.layout = "stereo"
    return stream


def _video_packets(
    stream: av.VideoStream, pictures: Sequence[Image], times: Sequence[float]
) -> "list[av.Packet[Any]]":
    packets: list[av.Packet[Any]] = []
    ticks = [round(t / CLOCK) for t in times]
    steps = [*np.diff(ticks).tolist(), 0] if len(ticks) > 1 else [0]
    steps[-1] = steps[-2] if len(steps) > 1 else round(Fraction(1, 25) / CLOCK)
    for picture, at, step in zip(pictures, ticks, steps, strict=True):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base, frame.duration = at, CLOCK, step
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def _audio_packets(stream: av.AudioStream, sound: Sound) -> "list[av.Packet[Any]]":
    packets: list[av.Packet[Any]] = []
    block, first = 1024, round(sound.start_s * RATE)
    for at in range(0, sound.samples.shape[1], block):
        piece = np.ascontiguousarray(sound.samples[:, at : at + block])
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = RATE, first + at, Fraction(1, RATE)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def _decoding_time(packet: "av.Packet[Any]") -> float:
    assert packet.dts is not None
    assert packet.time_base is not None
    return float(packet.dts * packet.time_base)
