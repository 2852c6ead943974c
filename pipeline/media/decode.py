"""What FFmpeg gives, made even: decoded frames in order, and the time of each picture."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import av
import av.error

DEFAULT_STEP_S = 1 / 25


def decoded(
    container: av.container.InputContainer,
    streams: Sequence[av.VideoStream | av.AudioStream],
    on_error: Callable[[], None],
    on_packet: Callable[["av.Packet[Any]"], None] | None = None,
) -> Iterator[av.VideoFrame | av.AudioFrame]:
    """Every frame that can be decoded; `on_error` is called for each packet that cannot, and
    `on_packet` for each packet before it is decoded.

    Damage in the container itself ends the stream: what came before it stands. Want of memory is no
    damage: MemoryError.
    """
    packets = container.demux(list(streams))
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except MemoryError:  # FFmpeg's is one of its own errors, too.
            raise
        except av.error.FFmpegError:
            on_error()
            return
        if on_packet is not None:
            on_packet(packet)
        try:
            frames = packet.decode()
        except MemoryError:
            raise
        except av.error.FFmpegError:
            on_error()
            continue
        for frame in frames:
            if isinstance(frame, av.VideoFrame | av.AudioFrame):
                yield frame


def declared_seconds(container: av.container.InputContainer, video: av.VideoStream) -> float | None:
    """How long the file says it is; None when it does not say."""
    if video.duration is not None and video.time_base is not None:
        return float(video.duration * video.time_base)
    return None if container.duration is None else container.duration / av.time_base


def frame_seconds(frame: av.VideoFrame, video: av.VideoStream, since_last: float) -> float:
    """For how long a frame is shown; as long as the last one where the file does not say."""
    if frame.duration and frame.time_base:
        return float(frame.duration * frame.time_base)
    return since_last or float(1 / (video.average_rate or 25))


class PictureClock:
    """Times of the pictures of one stream, asked for in decoding order from the file's start.

    AVI has no presentation times. FFmpeg guesses them from its packets, wrongly where there are
    B-frames, so there a picture's time is its number over the rate.
    """

    def __init__(self, container: av.container.InputContainer, video: av.VideoStream) -> None:
        self._rate = video.average_rate if container.format.name == "avi" else None
        self._step = float(1 / video.average_rate) if video.average_rate else DEFAULT_STEP_S
        self._count = 0
        self._next = 0.0

    @property
    def counts(self) -> bool:
        """Whether times depend on every picture since the start, so that nothing may be skipped."""
        return self._rate is not None

    def time(self, frame: av.VideoFrame) -> float:
        """Seconds on the container's clock; a picture without a time follows the last one."""
        if self._rate is not None:
            at = float(self._count / self._rate)
        else:
            at = self._next if frame.pts is None else float(frame.time)
        self._count += 1
        self._next = at + self._step
        return at
