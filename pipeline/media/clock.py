"""The source's clock: zero at its first picture, and no gap where the container's clock jumps.

Recordings put behind one another in a stream (MPEG-TS, MPEG-PS, Ogg: FFmpeg's `ts_discont`) bring
each a clock of their own. There, a step of more than `JUMP_SECONDS` between two pictures is a jump,
unless the sound goes on meanwhile: then it is a picture held for long. In other containers a
picture is held for as long as the times say. What lies over a minute before the file's first time
FFmpeg takes for the wrap of a clock of 33 bits, so that a step back so far is one ahead.
"""

from bisect import bisect_right
from dataclasses import dataclass, field

import av
import numpy as np
from av.format import Flags
from numpy.typing import NDArray

JUMP_SECONDS = 10.0
"""What FFmpeg's own command takes for a jump in such containers (`dts_delta_threshold`)."""
SOUND_JOIN_SECONDS = 1.0
"""Sound that stops for less goes on."""


@dataclass(frozen=True, slots=True)
class Jump:
    """A new stretch of the container's clock."""

    at_s: float
    """On the source's clock."""
    gone_s: float
    """By how much more than before the first jump the container's clock is ahead from here on."""


@dataclass(slots=True)
class SourceClock:
    """Sees what is decoded, in that order."""

    may_jump: bool
    zero_s: float | None = None
    """On the container's clock."""
    jumps: list[Jump] = field(default_factory=list)
    _edges: list[float] = field(default_factory=list)
    _heard: list[tuple[float, float]] = field(default_factory=list)

    @classmethod
    def of(cls, container: av.container.InputContainer) -> "SourceClock":
        """Of an open file, before anything is decoded."""
        return cls(Flags.ts_discont in Flags(container.format.flags))

    def hear(self, frame: av.AudioFrame) -> None:
        """The next of the sound."""
        begin = float(frame.time or 0.0)
        end = begin + frame.samples / frame.sample_rate
        last = self._heard[-1] if self._heard else (begin, begin)
        if self._heard and abs(begin - last[1]) < SOUND_JOIN_SECONDS:
            self._heard[-1] = last[0], max(end, last[1])
        else:
            self._heard.append((begin, end))

    def see(self, container_s: float, end_s: float) -> float:
        """When the next picture is shown; `end_s` is when the last one ends."""
        if self.zero_s is None:
            self.zero_s = container_s
        gap = self._now(container_s) - end_s
        if (
            self.may_jump
            and gap > JUMP_SECONDS
            and self._heard_between(container_s - gap, container_s) < gap / 2
        ):
            self._edges.append(container_s - gap / 2)
            self.jumps.append(Jump(end_s, self._gone_s + gap))
        return self._now(container_s)

    def times(self, container_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same moments on the source's clock, once all is decoded."""
        gone = np.array([0.0, *(jump.gone_s for jump in self.jumps)])
        after: NDArray[np.float64] = gone[np.searchsorted(self._edges, container_s)]
        return container_s - (self.zero_s or 0.0) - after

    def jumped_s(self, at_s: float) -> float:
        """By how much the container's clock has jumped until a time of the source."""
        before = bisect_right(self.jumps, at_s + 1e-6, key=lambda jump: jump.at_s)
        return self.jumps[before - 1].gone_s if before else 0.0

    def _heard_between(self, low_s: float, high_s: float) -> float:
        """Decoders may be a picture behind, so that its sound was there before the last one."""
        return sum(max(0.0, min(end, high_s) - max(begin, low_s)) for begin, end in self._heard)

    @property
    def _gone_s(self) -> float:
        return self.jumps[-1].gone_s if self.jumps else 0.0

    def _now(self, container_s: float) -> float:
        return container_s - (self.zero_s or 0.0) - self._gone_s
