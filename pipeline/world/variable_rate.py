"""Writes mp4 files whose frames come at irregular times, with sound from the first frame on."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.context import Flags
from jaxtyping import Float32, UInt8
from numpy import ndarray

from avdata import storage
from avdata.pipeline.world.scene import SAMPLE_RATE

AAC_PACKET = 1024


def write_variable_mp4(
    path: Path,
    frames: UInt8[ndarray, "n h w 3"],
    numbers: list[int],
    fps: int,
    samples: Float32[ndarray, "2 m"],
) -> None:
    """Frame k is shown at numbers[k] / fps, the last for 1 / fps; H.264 and AAC, the same bytes
    for the same input; h and w even."""
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with (
        storage.committed(path) as temporary,
        av.open(str(temporary), "w", format="mp4", options=options) as out,
    ):
        video = out.add_stream("libx264", rate=fps, options={"preset": "veryfast", "crf": "18"})
        video.height, video.width, video.pix_fmt = *frames.shape[1:3], "yuv420p"
        video.codec_context.time_base = Fraction(1, fps)
        video.codec_context.max_b_frames = 0
        video.codec_context.thread_count = 1
        audio = out.add_stream("aac", rate=SAMPLE_RATE)
        audio.codec_context.layout = "stereo"
        audio.codec_context.bit_rate = 192_000
        for stream in (video, audio):
            stream.codec_context.flags |= Flags.bitexact
        packets = _pictures(video, frames, numbers, fps) + _sound(audio, samples)
        for packet in sorted(packets, key=_decoding_time):
            out.mux(packet)


def _pictures(
    stream: av.VideoStream, frames: UInt8[ndarray, "n h w 3"], numbers: list[int], fps: int
) -> "list[av.Packet[Any]]":
    packets: list[av.Packet[Any]] = []
    steps = np.diff([*numbers, numbers[-1] + 1]).tolist()
    for image, number, step in zip(frames, numbers, steps, strict=True):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base, frame.duration = number, Fraction(1, fps), step
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def _sound(stream: av.AudioStream, samples: Float32[ndarray, "2 m"]) -> "list[av.Packet[Any]]":
    packets: list[av.Packet[Any]] = []
    for at in range(0, samples.shape[1], AAC_PACKET):
        piece = np.ascontiguousarray(samples[:, at : at + AAC_PACKET])
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, at, Fraction(1, SAMPLE_RATE)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def _decoding_time(packet: "av.Packet[Any]") -> float:
    assert packet.dts is not None
    assert packet.time_base is not None
    return float(packet.dts * packet.time_base)
