"""Where sound begins behind the silence that its encoder puts first.

Lossy encoders begin with a fixed delay. MP4 and Matroska can declare it, and FFmpeg then leaves it
out; MPEG-TS cannot, nor does MP4 when the sound starts late. Timestamps are right all the same:
what sounds with a picture is read with it. Only the start of the sound seems to come early.
"""

from typing import Any

import av
import numpy as np

PRIMING = {"aac": 1024, "mp3": 1105, "opus": 312}
"""Samples, as FFmpeg, LAME and libopus (at 48 kHz) put them first."""
SILENT = 1e-3


class SoundStart:
    """Sees the packets and the frames of one stream of sound, and tells when it begins."""

    def __init__(self, stream: av.AudioStream | None) -> None:
        self._stream = stream
        self._declared: bool | None = None
        self._begin: float | None = None
        self._num_silent = 0
        self._heard = False

    def packet(self, packet: "av.Packet[Any]") -> None:
        """Any packet before it is decoded; the first of the stream says what is left out."""
        if packet.stream is self._stream and self._declared is None:
            self._declared = packet.has_sidedata("skip_samples")

    def frame(self, frame: av.AudioFrame) -> None:
        """The next decoded frame of the stream."""
        if self._begin is None:
            self._begin = float(frame.time or 0.0)
        if self._heard or self._num_silent >= self._priming:
            return
        samples = frame.to_ndarray()
        full_scale = 1.0 if samples.dtype.kind == "f" else 2.0**15
        loud = np.flatnonzero(np.abs(samples).max(axis=0) > SILENT * full_scale)
        self._heard = len(loud) > 0
        self._num_silent += int(loud[0]) if self._heard else frame.samples

    def seconds(self) -> float | None:
        """On the container's clock; None when nothing was decoded."""
        if self._begin is None or self._stream is None:
            return None
        undeclared = self._priming if self._num_silent >= self._priming else 0
        return self._begin + undeclared / self._stream.codec_context.sample_rate

    @property
    def _priming(self) -> int:
        if self._stream is None or self._declared:
            return 0
        return PRIMING.get(self._stream.codec_context.codec.canonical_name, 0)
