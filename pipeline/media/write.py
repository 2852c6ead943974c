"""Writes mp4 files whose sound starts with the picture and ends with it.

No B-frames, so that presentation starts at zero without an edit list; frames and samples are fed
raw and counted, never cut by time, since `-t` and `-frames:v` lose the last few samples.
"""

import subprocess
import tempfile
from pathlib import Path
from typing import Literal

import av
import ffmpeg
import imageio_ffmpeg
import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

from avdata import storage
from avdata.errors import WriteRefused

SoundCodec = Literal["aac", "flac"]
"""FLAC holds exactly the samples given; AAC plays everywhere and is padded to whole packets."""
AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
"""Hz; FFmpeg takes the nearest for any other."""


def require_rate(codec: SoundCodec, sample_rate: int) -> None:
    """ValueError where the codec has no such rate, and FFmpeg would take the nearest unasked."""
    rates = av.Codec(codec, "w").audio_rates
    if rates is not None and sample_rate not in rates:
        known = ", ".join(map(str, sorted(rates)))
        raise ValueError(f"sample_rate must be one of {known} with {codec}, not {sample_rate}")


def write_mp4(
    path: Path,
    frames: UInt8[ndarray, "n h w 3"],
    fps: int,
    samples: Float32[ndarray, "2 m"],
    sample_rate: int,
    sound_codec: SoundCodec = "aac",
) -> None:
    """H.264 and sound, the same bytes for the same input; h and w even, samples in -1..1.

    WriteRefused with FFmpeg's own words when it does.
    """
    height, width = frames.shape[1:3]
    with tempfile.TemporaryDirectory() as folder, storage.committed(path) as temporary:
        sound = Path(folder) / "sound.f32"
        sound.write_bytes(np.ascontiguousarray(samples.T, dtype="<f4").tobytes())
        picture = ffmpeg.input(
            "pipe:", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", framerate=fps
        )
        heard = ffmpeg.input(str(sound), format="f32le", ar=sample_rate, ac=len(samples))
        command = ffmpeg.output(
            picture,
            heard,
            str(temporary.absolute()),  # Else `-c.mp4` is an option, and `c:1.mp4` a protocol.
            format="mp4",
            vcodec="libx264",
            pix_fmt="yuv420p",
            crf=18,
            preset="veryfast",
            bf=0,
            threads=1,
            acodec=sound_codec,
            **({"audio_bitrate": "192k"} if sound_codec == "aac" else {}),
            movflags="+faststart",
            fflags="+bitexact",
            **{"flags:v": "+bitexact", "flags:a": "+bitexact"},
        )
        arguments = ffmpeg.compile(command, cmd=imageio_ffmpeg.get_ffmpeg_exe())
        arguments += ["-hide_banner", "-loglevel", "error"]
        # A view: the raw frames of a large clip are not copied.
        raw = np.ascontiguousarray(frames).data.cast("B")
        done = subprocess.run(arguments, input=raw, capture_output=True, check=False)
        if done.returncode != 0:
            words = done.stderr.decode(errors="replace").strip().replace("\n", " | ")
            raise WriteRefused(f"{path}: FFmpeg could not write it: {words[-300:]}")
