"""A clip as a file of its own: written by the recipe of write.py, decoded again, and counted.

Every step between frames and a file can lose some without a word, so a file counts as written only
when decoding it gives the frames, at their times, and the samples that went in.
"""

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from avdata import storage
from avdata.encoders.spec import ClipShape
from avdata.errors import WriteRefused
from avdata.pipeline.media.clip import ClipMedia
from avdata.pipeline.media.decode import decoded
from avdata.pipeline.media.geometry import analysis_size
from avdata.pipeline.media.sound import SoundTrack, dbfs
from avdata.pipeline.media.stream import opened
from avdata.pipeline.media.write import SoundCodec, write_mp4

MAX_LAG_MS = 1.0
AAC_PACKET = 1024
REACH_S = 0.1
"""How far the sound is looked for from where it belongs."""
AUDIBLE_DBFS = -60.0


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a clip's file gives when it is read again."""

    num_frames: int
    num_samples: int
    duration_s: float
    """From the first frame to the end of the last."""
    lag_ms: float | None
    """By which the sound comes late, found in the samples themselves; None where it is silent."""


def own_shape(shown: tuple[int, int], clip: ClipShape, longer_side: int | None) -> ClipShape:
    """`clip` with the size (height, width) of its source, even, at most `longer_side`."""
    height, width = analysis_size(*shown, longer_side or max(shown))
    return ClipShape(clip.num_frames, clip.fps, height, width, clip.sample_rate)


def write_clip(path: Path, media: ClipMedia, shape: ClipShape, codec: SoundCodec) -> Decoded:
    """Commits the file; WriteRefused when what it holds is not what was given."""
    with storage.committed(path) as temporary:
        write_mp4(temporary, media.frames, shape.fps, media.samples, shape.sample_rate, codec)
        found = _decoded(temporary, media.samples, shape)
        wrong = _wrong(found, shape, codec)
        if wrong:
            raise WriteRefused(f"{path}: decodes to {', '.join(wrong)}; please report this")
    return found


def _wrong(found: Decoded, shape: ClipShape, codec: SoundCodec) -> list[str]:
    surplus = found.num_samples - shape.num_samples
    exact = surplus == 0 if codec == "flac" else 0 <= surplus < AAC_PACKET
    faults = {
        f"{found.num_frames} frames, not {shape.num_frames}": found.num_frames != shape.num_frames,
        f"{found.num_samples} samples, not {shape.num_samples}": not exact,
        f"{found.duration_s:.4f} s": abs(found.duration_s - shape.shown_seconds)
        > MAX_LAG_MS / 1000,
        f"sound {found.lag_ms} ms late": abs(found.lag_ms or 0.0) > MAX_LAG_MS,
    }
    return [words for words, is_so in faults.items() if is_so]


def _decoded(path: Path, samples: Float32[ndarray, "2 m"], shape: ClipShape) -> Decoded:
    track, times, end, refused = SoundTrack(shape.sample_rate), [], 0.0, [0]

    def count() -> None:
        refused[0] += 1

    with opened(path, threads=1) as container:
        streams: list[av.VideoStream | av.AudioStream]
        streams = [container.streams.video[0], container.streams.audio[0]]
        for frame in decoded(container, streams, count):
            if isinstance(frame, av.AudioFrame):
                track.add(frame)
            else:
                times.append(float(frame.time))
                end = times[-1] + float(frame.duration * (frame.time_base or 0))
    expected = np.arange(len(times)) / shape.fps
    if refused[0] or not times or np.abs(np.array(times) - expected).max() > MAX_LAG_MS / 1000:
        raise WriteRefused(f"{path}: its frames are not at the times they were written for")
    heard = track.finish(0.0)
    return Decoded(len(times), heard.shape[1], end, _lag_ms(samples, heard, shape.sample_rate))


def _lag_ms(
    wanted: Float32[ndarray, "2 m"], heard: Float32[ndarray, "2 n"], rate: int
) -> float | None:
    """Where the two sounds agree best."""
    one, other = (sound.mean(axis=0, dtype=np.float64) for sound in (wanted, heard))
    if dbfs(float(np.sqrt(np.square(one).mean())) if one.size else 0.0) < AUDIBLE_DBFS:
        return None
    size = 1 << (len(one) + len(other)).bit_length()
    agreement = np.fft.irfft(np.fft.rfft(other, size) * np.fft.rfft(one, size).conj(), size)
    reach = min(round(REACH_S * rate), size // 2 - 1)
    near = np.concatenate([agreement[-reach:], agreement[: reach + 1]])
    return 1000 * (int(near.argmax()) - reach) / rate
