"""Sound placed by timestamp: decoded audio frames in, samples on the picture's clock out."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from avdata.pipeline.media.memory import require_room
from avdata.pipeline.media.spool import Spool

# A later frame that starts this far from where the last one ended begins a new stretch; less is
# the rounding of container clocks (Matroska counts milliseconds) and must not tear the sound.
JOIN_SECONDS = 0.02

Clock = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Its own times for the container's."""


class Samples(Protocol):
    """(m,) mono samples, of which any span can be had: an array, or more than fits into one."""

    def __len__(self) -> int: ...

    def __getitem__(self, span: slice, /) -> NDArray[np.float32]: ...


class SoundTrack:
    """Collects decoded audio frames, resampled once, each stretch at its own start time.

    Of two channels always: a sound of one is as loud in both.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.first_s: float | None = None
        self.num_refused = 0
        self.is_mono = True
        """Whether no frame had more than one channel."""
        self._samples = Spool(np.float32, (2,))
        self._stretches: list[tuple[float, int]] = []
        """When each begins, and with which sample."""
        self._resampler: av.AudioResampler | None = None
        self._kind: tuple[str, str, int] | None = None
        self._next_s = 0.0

    def add(self, frame: av.AudioFrame) -> None:
        """The next decoded frame; one without a timestamp follows the last. What FFmpeg cannot
        resample, its header being damaged, is counted and left out.
        """
        try:
            self._add(frame)
        except MemoryError:
            raise
        except av.error.FFmpegError:
            require_room()
            self.num_refused += 1
            self._resampler = self._kind = None

    def _add(self, frame: av.AudioFrame) -> None:
        start = self._next_s if frame.time is None else float(frame.time)
        if frame.layout.name.startswith("ambisonic"):
            frame = _from_all_around(frame)
        kind = (frame.layout.name, frame.format.name, frame.sample_rate)
        if kind != self._kind or abs(start - self._next_s) > JOIN_SECONDS:
            self._flush()
            self._kind = kind
            self._resampler = _resampler(frame.layout.nb_channels, self.rate)
            self._stretches.append((start, len(self._samples)))
            self._next_s = start
        assert self._resampler is not None
        # Our own clock: the resampler must not see jitter of the container's.
        frame.pts = None
        self._keep(self._resampler.resample(frame))
        if self.first_s is None:
            self.first_s = start
        self._next_s += frame.samples / frame.sample_rate

    def finish(self, start_s: float, num_samples: int | None = None) -> NDArray[np.float32]:
        """(2, num_samples) from `start_s` on, zero where there was no sound.

        Without `num_samples`, to the end of the sound: for sound whose times can be trusted.
        """
        placed = self.placed(lambda times: times - start_s, num_samples)
        return placed.read(0, len(placed))

    def placed(self, clock: Clock, num_samples: int | None = None) -> "Stereo":
        """As `finish` from the clock's zero on, but read when asked for: whatever its length, it
        costs no memory.
        """
        self._flush()
        starts = np.array([start for start, _ in self._stretches], np.float64)
        edges = np.array([*(first for _, first in self._stretches), len(self._samples)], np.int64)
        placed = np.round(clock(starts) * self.rate).astype(np.int64)
        if num_samples is None:
            num_samples = int((placed + np.diff(edges)).max(initial=0))
        return Stereo(self._samples, placed, edges, max(num_samples, 0))

    def _keep(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            samples = frame.to_ndarray()
            if samples.dtype == np.int32:
                samples = samples.astype(np.float32) / 2**31
            self.is_mono = self.is_mono and len(samples) == 1
            self._samples.append(np.broadcast_to(samples, (2, samples.shape[1])).T)

    def _flush(self) -> None:
        if self._resampler is not None:
            self._keep(self._resampler.resample(None))
            self._resampler = None
            self._kind = None


@dataclass(frozen=True, slots=True, eq=False)
class Stereo:
    """Stretches at their places, zero where there are none; where two meet, the later one."""

    samples: Spool
    at: NDArray[np.int64]
    edges: NDArray[np.int64]
    length: int

    def __len__(self) -> int:
        return self.length

    def read(self, low: int, high: int) -> NDArray[np.float32]:
        """(2, high - low), left and right."""
        out = np.zeros((2, max(high - low, 0)), np.float32)
        ends = self.at + np.diff(self.edges)
        for k in np.flatnonzero((self.at < high) & (ends > low)):
            begin, end = max(int(self.at[k]), low), min(int(ends[k]), high)
            first = int(self.edges[k]) + begin - int(self.at[k])
            out[:, begin - low : end - low] = self.samples[first : first + end - begin].T
        return np.nan_to_num(out, copy=False)


@dataclass(frozen=True, slots=True, eq=False)
class Mono:
    """The mean of left and right, so a sound of one channel is as loud as it was."""

    both: Stereo

    def __len__(self) -> int:
        return len(self.both)

    def __getitem__(self, span: slice, /) -> NDArray[np.float32]:
        low, high, _ = span.indices(len(self))
        left, right = self.both.read(low, high)
        # Numpy's mean costs more, and the sum of the two may be more than there is.
        mean: NDArray[np.float32] = 0.5 * left + 0.5 * right
        return mean


def _from_all_around(frame: av.AudioFrame) -> av.AudioFrame:
    """Channel W of an ambisonic sound, what is heard from all directions at its level: FFmpeg
    cannot mix such a sound down. It comes first, in any order of the channels.
    """
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    first: NDArray[Any] = np.ascontiguousarray(samples[:1])
    mono = av.AudioFrame.from_ndarray(first, format=frame.format.name, layout="mono")
    mono.sample_rate = frame.sample_rate
    return mono


def _resampler(channels: int, rate: int) -> av.AudioResampler:
    """To mono or stereo at full level. FFmpeg alone would take 3 dB from a mono sound made stereo,
    and mixes many channels beyond full scale unless its output is of integers.
    """
    if channels == 1:
        return av.AudioResampler(format="fltp", layout="mono", rate=rate)
    return av.AudioResampler(format="fltp" if channels == 2 else "s32p", layout="stereo", rate=rate)


def dbfs(amplitude: float) -> float:
    """Amplitude in 0..1 as dB of full scale; -120 for nothing."""
    return max(-120.0, 20.0 * math.log10(amplitude)) if amplitude > 0 else -120.0
