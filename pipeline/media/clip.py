"""A clip's exact frames and samples, cut by timestamp from its source.

Frame k is the source frame nearest in time to start + k/fps: unbiased, where the frame last shown
would lag by half a frame period on average. Sample 0 sounds at frame 0. Both counts are exact.
"""

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

from avdata.encoders.spec import ClipShape
from avdata.errors import MediaError
from avdata.pipeline.media.decode import PictureClock, decoded
from avdata.pipeline.media.geometry import CENTER_CROP, Fit, fitted, pixel_aspect
from avdata.pipeline.media.memory import require_room
from avdata.pipeline.media.sound import SoundTrack
from avdata.pipeline.media.stream import opened

# Seeking lands on a key frame before the wanted time, as the container's index has it; where it
# lands late (no index, or a wrong one) decoding starts again from the beginning.
SEEK_MARGIN_S = 1.0
# Containers interleave; where the sound has not come this long after its pictures, it has ended.
SOUND_LATE_S = 5.0


@dataclass(frozen=True, slots=True)
class ClipMedia:
    """Pixels and samples of one clip."""

    frames: UInt8[ndarray, "n h w 3"]
    samples: Float32[ndarray, "2 m"]
    """In -1..1; zero where the source has no sound."""

    def evenly(self, count: int) -> UInt8[ndarray, "k h w 3"]:
        """So many frames, spread from the first to the last, or all where there are fewer."""
        places = np.linspace(0, len(self.frames) - 1, min(count, len(self.frames)))
        found: UInt8[ndarray, "k h w 3"] = self.frames[places.round().astype(int)]
        return found


def read_clip(
    path: Path, start_s: float, shape: ClipShape, threads: int = 1, fit: Fit = CENTER_CROP
) -> ClipMedia:
    """The clip that starts `start_s` after the source's first frame by the file's own timestamps.

    MediaError when the source ends before the clip does.
    """
    first, may_seek = _first_picture(path, threads)
    start = first + start_s
    seeks = (True, False) if may_seek and start > SEEK_MARGIN_S else (False,)
    for seek in seeks:
        with opened(path, threads) as container:
            if seek:
                container.seek(int((start - SEEK_MARGIN_S) * av.time_base), backward=True)
            picker = _NearestFrames(start, shape, pixel_aspect(container), fit)
            clip = _read(container, start, shape, picker, from_start=not seek)
        if clip is not None:
            return clip
    raise MediaError("decode", "clip_beyond_end", f"{path.name}: no clip at {start_s:.3f} s")


def _first_picture(path: Path, threads: int) -> tuple[float, bool]:
    """Its time, and whether the container can be entered in the middle."""
    with opened(path, threads) as container:
        video = _video(container)
        clock = PictureClock(container, video)
        for frame in decoded(container, [video], require_room):
            if isinstance(frame, av.VideoFrame):
                return clock.time(frame), not clock.counts
    raise MediaError("decode", "no_frame_decoded", path.name)


def _video(container: av.container.InputContainer) -> av.VideoStream:
    video = container.streams.best("video")
    if not isinstance(video, av.VideoStream) or video.codec_context is None:
        raise MediaError("probe", "no_video_stream", f"{len(container.streams)} streams")
    return video


def _read(
    container: av.container.InputContainer,
    start: float,
    shape: ClipShape,
    picker: "_NearestFrames",
    *,
    from_start: bool,
) -> ClipMedia | None:
    """None when decoding began after `start` (a seek that landed late) or ended too soon."""
    video = _video(container)
    audio = container.streams.best("audio", related=video)
    clock = PictureClock(container, video)
    track = SoundTrack(shape.sample_rate)
    sound_end = start + shape.seconds
    heard_until = None if isinstance(audio, av.AudioStream) else sound_end
    streams: list[av.VideoStream | av.AudioStream] = [video]
    if isinstance(audio, av.AudioStream):
        streams.append(audio)
    # Packets that cannot be decoded were counted when the source was measured.
    for frame in decoded(container, streams, require_room):
        if isinstance(frame, av.AudioFrame):
            at = float(frame.time) if frame.time is not None else heard_until or 0.0
            if heard_until is None and at > start and not from_start:
                return None
            heard_until = at + frame.samples / frame.sample_rate
            if heard_until > start - SEEK_MARGIN_S and at < sound_end:
                track.add(frame)
        else:
            at = clock.time(frame)
            if not picker.add(frame, at) and not from_start:
                return None
            if at > sound_end + SOUND_LATE_S:
                break
        if picker.done and heard_until is not None and heard_until >= sound_end:
            break
    frames = picker.finish()
    if frames is None:
        return None
    # Lossy decoders overshoot full scale by a little.
    return ClipMedia(frames, track.finish(start, shape.num_samples).clip(-1.0, 1.0))


class _NearestFrames:
    """Picks, as frames go by in order, the one nearest to each wanted time."""

    def __init__(self, start: float, shape: ClipShape, pixel_aspect: float, fit: Fit) -> None:
        self._wanted = start + np.arange(shape.num_frames) / shape.fps
        self._period = 1 / shape.fps
        self._shape = shape
        self._pixel_aspect = pixel_aspect
        self._fit = fit
        self._picked: list[UInt8[ndarray, "h w 3"]] = []
        self._last: tuple[float, av.VideoFrame] | None = None

    @property
    def done(self) -> bool:
        return len(self._picked) == len(self._wanted)

    def add(self, frame: av.VideoFrame, at: float) -> bool:
        """False when the first frame already lies after the first wanted time."""
        if self.done or at <= (self._last[0] if self._last else -np.inf):
            return True
        if self._last is None:
            self._last = (at, frame)
            return bool(at <= self._wanted[0] + 1e-6)
        middle = (self._last[0] + at) / 2
        self._pick(self._last[1], until=middle)
        self._last = (at, frame)
        return True

    def finish(self) -> UInt8[ndarray, "n h w 3"] | None:
        """The frames; the source's last one serves until its end, at least one period."""
        if self._last is not None and not self.done:
            at, frame = self._last
            shown = float(frame.duration * frame.time_base) if frame.time_base else 0.0
            self._pick(frame, until=at + max(shown, self._period) + 1e-6)
        return np.stack(self._picked) if self.done else None

    def _pick(self, frame: av.VideoFrame, until: float) -> None:
        picture = None
        while not self.done and self._wanted[len(self._picked)] < until:
            if picture is None:
                size = self._shape.height, self._shape.width
                picture = fitted(frame, self._pixel_aspect, *size, self._fit)
            self._picked.append(picture)
