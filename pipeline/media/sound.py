"""Sound placed by timestamp: decoded audio frames in, one array on the picture's clock out."""

import math
from typing import Literal

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from avdata.pipeline.media.channels import ChannelSums

# A later frame that starts this far from where the last one ended begins a new stretch; less is
# the rounding of container clocks (Matroska counts milliseconds) and must not tear the sound.
JOIN_SECONDS = 0.02


class SoundTrack:
    """Collects decoded audio frames, resampled once, each stretch at its own start time.

    `channels` is 2 or 1; one channel is the mean of two, so a sound is as loud in both.
    """

    def __init__(self, rate: int, channels: Literal[1, 2]) -> None:
        self.rate = rate
        self.channels = channels
        self.first_s: float | None = None
        self.num_refused = 0
        self.channel_sums = ChannelSums()
        """What two channels had in common before they became one."""
        self._stretches: list[tuple[float, list[NDArray[np.float32]]]] = []
        self._resampler: av.AudioResampler | None = None
        self._kind: tuple[str, str, int] | None = None
        self._next_s = 0.0
        self._num_kept = 0

    def add(self, frame: av.AudioFrame) -> None:
        """The next decoded frame; one without a timestamp follows the last. What FFmpeg cannot
        resample, its header being damaged, is counted and left out.
        """
        try:
            self._add(frame)
        except av.error.FFmpegError:
            self.num_refused += 1
            self._resampler = self._kind = None

    def _add(self, frame: av.AudioFrame) -> None:
        start = self._next_s if frame.time is None else float(frame.time)
        kind = (frame.layout.name, frame.format.name, frame.sample_rate)
        if kind != self._kind or abs(start - self._next_s) > JOIN_SECONDS:
            self._flush()
            self._kind = kind
            self._resampler = _resampler(frame.layout.nb_channels, self.rate)
            self._stretches.append((start, []))
            self._next_s = start
            self._num_kept = 0
        assert self._resampler is not None
        # Our own clock: the resampler must not see jitter of the container's.
        frame.pts = None
        self._keep(self._resampler.resample(frame))
        if self.first_s is None:
            self.first_s = start
        self._next_s += frame.samples / frame.sample_rate

    def finish(self, start_s: float, num_samples: int | None = None) -> NDArray[np.float32]:
        """(channels, num_samples) from `start_s` on, zero where there was no sound.

        Without `num_samples`, to the end of the sound: for sound whose times can be trusted.
        """
        self._flush()
        placed = [
            (round((start - start_s) * self.rate), np.concatenate(chunks, axis=1))
            for start, chunks in self._stretches
            if chunks
        ]
        if num_samples is None:
            num_samples = max((at + sound.shape[1] for at, sound in placed), default=0)
        out = np.zeros((self.channels, max(num_samples, 0)), dtype=np.float32)
        for at, sound in placed:
            low, high = max(at, 0), min(at + sound.shape[1], out.shape[1])
            if low < high:
                out[:, low:high] = sound[:, low - at : high - at]
        return np.nan_to_num(out, copy=False)

    def _keep(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            samples = frame.to_ndarray()
            if samples.dtype == np.int32:
                samples = samples.astype(np.float32) / 2**31
            if self.channels == 1 and len(samples) == 2:
                middle = self._num_kept + samples.shape[1] / 2
                start, _ = self._stretches[-1]
                self.channel_sums.add(start + middle / self.rate, samples)
                samples = 0.5 * (samples[:1] + samples[1:])  # Numpy's mean costs more.
            self._num_kept += samples.shape[1]
            kept = np.broadcast_to(samples, (self.channels, samples.shape[1]))
            self._stretches[-1][1].append(kept.astype(np.float32, copy=False))

    def _flush(self) -> None:
        if self._resampler is not None:
            self._keep(self._resampler.resample(None))
            self._resampler = None
            self._kind = None


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
