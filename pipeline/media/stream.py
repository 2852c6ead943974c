"""One decode of one source: every frame with its time, the sound, and the facts of the file.

All times are seconds from the first frame. FFmpeg's edit lists and discard flags are honoured, so
a time is what a player would show. Nothing seeks, so every container gives the same answer.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from avdata.errors import MediaError
from avdata.pipeline.media.alive import getting_on
from avdata.pipeline.media.clock import SourceClock
from avdata.pipeline.media.decode import PictureClock, declared_seconds, decoded, frame_seconds
from avdata.pipeline.media.geometry import (
    analysis_size,
    mirrored,
    pixel_aspect,
    scaled,
    shown_size,
)
from avdata.pipeline.media.hdr import hdr
from avdata.pipeline.media.limits import OPEN_OPTIONS, MediaLimits
from avdata.pipeline.media.luma import scaled_luma
from avdata.pipeline.media.memory import require_room
from avdata.pipeline.media.priming import SoundStart
from avdata.pipeline.media.sound import SoundTrack, Stereo
from avdata.pipeline.record import Media

ANALYSIS_RATE = 44_100
ANALYSIS_LONGER_SIDE = 320
SMALLER = 4
"""By how much smaller the picture is that every frame is measured by."""
SMALLEST_SIDE = 12
"""Of that picture: what optical flow needs. Tiny pictures and ribbons are stretched to it."""
ALIVE_SECONDS = 10.0
SOUND_AT_ONCE = 32
"""Decoded frames of sound that are read together: between two pictures each would find the code and
the data that it needs gone from the processor's caches."""


@dataclass(frozen=True, slots=True)
class SmallPicture:
    """What most measurements need of one frame: a few kB, where the frame has megabytes."""

    t: float
    small: NDArray[np.uint8]
    """(h / 4, w / 4) luma of analysis size (h, w), upright, 0 black to 255 white."""


@dataclass(frozen=True, slots=True)
class Picture(SmallPicture):
    """One frame."""

    frame: av.VideoFrame
    size: tuple[int, int]
    """(h, w) of analysis."""

    @classmethod
    def of(cls, t: float, frame: av.VideoFrame, size: tuple[int, int]) -> "Picture":
        """Of a decoded frame and its analysis size."""
        height, width = (max(SMALLEST_SIDE, side // SMALLER) for side in size)
        return cls(t, scaled_luma(frame, height, width), frame, size)

    def alone(self) -> SmallPicture:
        """Without its frame, whose memory the decoder wants back."""
        return SmallPicture(self.t, self.small)

    def luma(self) -> NDArray[np.uint8]:
        """(h, w) upright at analysis size; made when asked for, like `rgb`."""
        return scaled_luma(self.frame, *self.size)

    def rgb(self, height: int, width: int) -> NDArray[np.uint8]:
        """(height, width, 3) upright; made when asked for, as it costs more than the luma."""
        return scaled(self.frame, height, width)


@contextmanager
def opened(path: Path, threads: int) -> Iterator[av.container.InputContainer]:
    """The container, closed afterwards; MediaError when FFmpeg cannot make sense of it."""
    if path.stat().st_size == 0:
        raise MediaError("probe", "empty_file", "0 bytes")
    try:
        container = av.open(str(path), options=OPEN_OPTIONS, metadata_errors="replace")
    except MemoryError:
        raise
    except (av.error.FFmpegError, ValueError) as error:
        raise MediaError("probe", "not_media", _short(error, path)) from error
    with container:
        for stream in (*container.streams.video, *container.streams.audio):
            if stream.codec_context is not None:
                stream.codec_context.thread_count = threads
        yield container


class SourceStream:
    """Iterate over `pictures()` to the end; then `sound()` and `media()` have their answers."""

    def __init__(self, container: av.container.InputContainer, limits: MediaLimits) -> None:
        video = container.streams.best("video")
        if not isinstance(video, av.VideoStream):
            raise MediaError("probe", "no_video_stream", f"{len(container.streams)} streams")
        if video.codec_context is None:
            raise MediaError("probe", "no_decoder", "FFmpeg knows no decoder for its picture")
        if video.width * video.height > limits.max_pixels:
            raise MediaError("probe", "picture_too_large", f"{video.width}x{video.height}")
        audio = container.streams.best("audio", related=video)
        self._container = container
        self._limits = limits
        self._video = video
        self._shown_at = PictureClock(container, video)
        self.clock = SourceClock.of(container)
        self._audio = audio if isinstance(audio, av.AudioStream) else None
        self._track = SoundTrack(ANALYSIS_RATE)
        self._start = SoundStart(self._audio)
        self._heard: list[av.AudioFrame] = []
        self._times: list[float] = []
        self._told_s = 0.0
        self._size = (0, 0)
        self._shown = (0, 0)
        self._rotation = 0
        self._mirrored = False
        self._format: av.VideoFormat | None = None
        self._hdr: str | None = None
        self._last_duration = 0.0
        self._num_errors = 0
        self._num_backward = 0

    def pictures(self) -> Iterator[Picture]:
        """Every frame in order of time; a frame whose time goes back is counted, not given."""
        streams = [stream for stream in (self._video, self._audio) if stream is not None]
        for frame in decoded(self._container, streams, self._count_error, self._start.packet):
            if isinstance(frame, av.AudioFrame):
                self._heard.append(frame)
                self.clock.hear(frame)
                if len(self._heard) == SOUND_AT_ONCE:
                    self._listen()
            else:
                yield from self._picture(frame)
        self._listen()
        if not self._times:
            raise MediaError("decode", "no_frame_decoded", f"{self._num_errors} packets refused")
        self._require_not_over(self.end)

    def sound(self) -> Stereo | None:
        """(2, m) at ANALYSIS_RATE from frame 0 to `end`; None where no sound was decoded."""
        if self._track.first_s is None or not self._times:
            return None
        return self._track.placed(self.clock.times, round(self.end * ANALYSIS_RATE))

    @property
    def is_mono(self) -> bool:
        """Whether the sound has one channel, which both of `sound` are then."""
        return self._track.is_mono

    @property
    def nominal_fps(self) -> float:
        """What the file calls its rate; 25 where it says nothing believable."""
        rate = float(self._video.average_rate or 0)
        return rate if 1 <= rate <= 240 else 25.0

    @property
    def times(self) -> NDArray[np.float64]:
        """(n,) times of the frames given."""
        return np.array(self._times)

    @property
    def end(self) -> float:
        """End of the last frame."""
        return self._times[-1] + self._last_duration

    def media(self) -> Media:
        """The facts, after the last frame."""
        assert self._format is not None
        container, audio = self._container, self._audio
        # What is declared counts the gap of a jump as time.
        declared = None if self.clock.jumps else declared_seconds(container, self._video)
        begin = self._start.seconds()
        lag = None if begin is None else float(self.clock.times(np.array(begin)))
        steps = np.diff(self.times)
        heard = self._track.first_s is not None and audio is not None
        return Media(
            container=container.format.name,
            duration_s=self.end,
            duration_error_ms=None if declared is None else 1000 * (declared - self.end),
            video_codec=self._video.codec_context.name,
            width=self._shown[1],
            height=self._shown[0],
            rotation=-self._rotation % 360,
            fps=len(self._times) / self.end if self.end > 0 else 0.0,
            # Clocks of 1 ms (Matroska) jitter by 1 ms; more than that is a variable rate.
            vfr=bool(len(steps) and np.ptp(steps) > 0.0025),
            audio_codec=audio.codec_context.name if heard and audio else None,
            audio_rate=audio.codec_context.sample_rate if heard and audio else None,
            audio_channels=audio.codec_context.layout.nb_channels if heard and audio else None,
            av_lag_ms=None if lag is None else 1000 * lag,
            flags=self._flags(declared),
            pix_fmt=self._format.name,
            bit_depth=max(part.bits for part in self._format.components),
            hdr=self._hdr,
            num_video_streams=len(container.streams.video),
            num_audio_streams=len(container.streams.audio),
        )

    def _count_error(self) -> None:
        require_room()
        self._num_errors += 1

    def _listen(self) -> None:
        for frame in self._heard:
            self._start.frame(frame)
            self._track.add(frame)
        self._heard.clear()

    def _picture(self, frame: av.VideoFrame) -> Iterator[Picture]:
        last = self._times[-1] if self._times else 0.0
        starts = self.clock.zero_s is None
        t = self.clock.see(self._shown_at.time(frame), last + self._last_duration)
        if starts:
            self._shown = shown_size(frame, pixel_aspect(self._container))
            self._size = analysis_size(*self._shown, ANALYSIS_LONGER_SIDE)
            self._rotation = frame.rotation
            self._mirrored = mirrored(frame)
            self._format = frame.format
            self._hdr = hdr(frame)
        elif t <= last:
            self._num_backward += 1
            return
        self._require_not_over(t)
        try:
            picture = Picture.of(t, frame, self._size)
        except MemoryError:
            raise
        except av.error.FFmpegError:  # A format that its scaler does not know, by damage.
            self._count_error()
            return
        if t >= self._told_s + ALIVE_SECONDS:
            self._told_s = t
            getting_on()
        self._last_duration = frame_seconds(frame, self._video, t - last)
        self._times.append(t)
        yield picture

    def _require_not_over(self, seconds: float) -> None:
        if seconds > self._limits.max_seconds:
            raise MediaError("decode", "too_long", f"over {self._limits.max_seconds:g} s")

    def _flags(self, declared: float | None) -> list[str]:
        unreadable = [s for s in self._container.streams.audio if s.codec_context is None]
        unheard = self._audio is not None and self._track.first_s is None
        found = {
            "timestamps_out_of_order": self._num_backward > 0,
            "decode_errors": self._num_errors + self._track.num_refused > 0,
            "truncated": declared is not None and declared - self.end > max(0.5, 0.05 * declared),
            "timestamps_jump": bool(self.clock.jumps),
            "no_declared_duration": declared is None,
            "mirrored": self._mirrored,
            "audio_unreadable": bool(unreadable) or unheard,
            "no_audio_stream": self._audio is None and not unreadable,
        }
        return [name for name, is_so in found.items() if is_so]


def _short(error: Exception, path: Path) -> str:
    return str(error).replace(f"'{path}'", path.name).replace("\n", " ")[:300]
