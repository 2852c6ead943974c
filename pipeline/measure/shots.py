"""Shots: hard cuts, fades through an empty picture, and dissolves, on our own clock.

PySceneDetect's adaptive detector proposes hard cuts; the rest compares thumbnails. Two pictures
belong to one shot when their structure correlates, which a change of light leaves as it is:

- where a picture was held for longer than a shot the next may be a cut, too: of a slide show the
  detector, which compares with the changes around, proposes none;
- a proposed cut stands when no picture of the 0.3 s before it looks like one of the 0.3 s after.
  After a camera flash or in a strobe the same picture is back;
- a fade passes through pictures without structure, black or of any other colour;
- in a dissolve each picture is a mixture of the one before and the one after (dissolves.py).
"""

import itertools
from bisect import bisect_left
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from avdata import storage
from avdata.pipeline.measure.dissolves import (
    Transition,
    correlation,
    dissolves,
    spreads,
)
from avdata.pipeline.measure.proposals import THUMBNAIL, proposed_cuts
from avdata.pipeline.measure.transnet import TransNet
from avdata.pipeline.media.spool import Spool
from avdata.pipeline.media.stream import Picture

MIN_SHOT_SECONDS = 0.3
"""What is shorter is a flash or a glitch, no shot."""
SAME_SHOT = 0.6
"""Correlation from which two pictures are of one shot. Across hand-marked cuts it is 0.64 at most,
under 0.3 for nine in ten; across lamps and flashes over 0.8."""
HALF_WAY = 0.5
"""Nor is it a cut when the picture comes half of the jump's way back: where there is little
structure, what moves weighs more in the correlation than it shows. And a fade has no such step."""
EMPTY_STD = 4.0
"""Spread of luma (of 255) under which a thumbnail has no structure."""
MAX_FADE_SECONDS = 2.0
"""Of one side of a fade."""


@dataclass(frozen=True, slots=True)
class ShotConfig:
    """How shots are found."""

    transnet: str | None = None
    """An ONNX file of TransNetV2 to use instead; needs onnxruntime."""

    @property
    def digest(self) -> str | None:
        """Of the network; None for the built-in detector."""
        return None if self.transnet is None else storage.digest_file(Path(self.transnet))


class ShotFinder:
    """Takes every frame in order; `finish` has the transitions between shots."""

    def __init__(self, fps: float, config: ShotConfig | None = None) -> None:
        self._fps = float(max(fps, 1))  # An int means something else to FrameTimecode.
        path = config.transnet if config else None
        self._transnet = None if path is None else TransNet(Path(path))
        self._times: list[float] = []
        self._thumbnails = Spool(np.uint8, (THUMBNAIL[0] * THUMBNAIL[1],))

    def add(self, picture: Picture) -> None:
        """The next frame."""
        self._times.append(picture.t)
        if self._transnet is not None:
            self._transnet.add(picture)
            return
        thumbnail = cv2.resize(picture.small, THUMBNAIL, interpolation=cv2.INTER_AREA)
        self._thumbnails.append(thumbnail.reshape(1, -1))

    def finish(self) -> list[Transition]:
        """In order, none touching another, after the last frame."""
        if self._transnet is not None:
            return self._transnet.transitions()
        if not self._times:
            return []
        series = _Series(np.array(self._times), self._thumbnails[:])
        proposed = {*proposed_cuts(series.thumbnails, self._fps), *series.after_held()}
        found = [Transition(cut, cut) for cut in sorted(proposed) if series.is_cut(cut)]
        found += series.fades(found)
        found += dissolves(series.times, series.thumbnails, series.spread, SAME_SHOT, found)
        return _spaced(found, series.times)


def shots(
    times: list[float], end: float, transitions: list[Transition]
) -> list[tuple[float, float]]:
    """(start, end) of each shot in seconds. With hard cuts they tile the source from its first
    frame to `end`; what fades or dissolves belongs to none."""
    edges = [(0.0, times[0])]
    edges += [(times[one.begin], times[one.end]) for one in transitions if one.begin > 0]
    edges.append((end, end))
    return [(before[1], after[0]) for before, after in itertools.pairwise(edges)]


def with_jumps(
    found: list[Transition], times: list[float], jumps_s: list[float]
) -> list[Transition]:
    """A hard cut, too, at each jump of the clock, in place of what was found there."""
    jumps = [Transition(cut, cut) for cut in (bisect_left(times, t - 1e-6) for t in jumps_s)]
    kept = [one for one in found if not any(one.begin <= at.end <= one.end for at in jumps)]
    return sorted([*kept, *(at for at in jumps if at.end < len(times))])


@dataclass(frozen=True)
class _Series:
    """All thumbnails of a source."""

    times: Float[ndarray, " n"]
    thumbnails: UInt8[ndarray, "n d"]
    spread: Float[ndarray, " n"] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "spread", spreads(self.thumbnails))

    @property
    def empty(self) -> Bool[ndarray, " n"]:
        """Which have no structure."""
        nothing: Bool[ndarray, " n"] = self.spread < EMPTY_STD
        return nothing

    def after_held(self) -> list[int]:
        """Frames that come after one that was shown for as long as a shot, and have structure, or
        it has."""
        held = np.flatnonzero(np.diff(self.times) >= MIN_SHOT_SECONDS) + 1
        found: list[int] = held[~(self.empty[held] & self.empty[held - 1])].tolist()
        return found

    def is_cut(self, cut: int) -> bool:
        """Whether nothing before frame `cut` looks like anything from it on."""
        since, until = self.times[cut] - MIN_SHOT_SECONDS, self.times[cut] + MIN_SHOT_SECONDS
        # However long the last picture before it was shown, it is there.
        first = min(int(np.searchsorted(self.times, since - 1e-6)), cut - 1)
        before = self.thumbnails[first:cut]
        after = self.thumbnails[cut : int(np.searchsorted(self.times, until + 1e-6))]
        if correlation(before, after).max() > SAME_SHOT:
            return False
        jump = _difference(self.thumbnails[cut - 1], self.thumbnails[cut])
        nearest = min(_difference(one, other) for one in before for other in after)
        return nearest >= HALF_WAY * jump

    def fades(self, cuts: list[Transition]) -> list[Transition]:
        """From where the picture begins to go to where the next one is there, unless there is a
        hard cut on either side of the emptiness."""
        found = []
        edges = np.flatnonzero(np.diff(np.r_[False, self.empty, False]))
        hard = {cut.end for cut in cuts}
        for begin, end in edges.reshape(-1, 2).tolist():
            at_an_end = begin == 0 or end == len(self.times)
            if at_an_end or hard & set(range(begin - 1, end + 2)):
                continue
            lasts = self.times[end] - self.times[begin] > MIN_SHOT_SECONDS
            if lasts or (self._is_gradual(begin, -1) and self._is_gradual(end - 1, 1)):
                found.append(Transition(self._grown(begin, -1), self._grown(end - 1, 1)))
        return found

    def _is_gradual(self, empty: int, step: int) -> bool:
        """Whether no single step leads most of the way between a picture and the empty frame."""
        since = self.times[empty] + step * MIN_SHOT_SECONDS
        far = min(int(np.searchsorted(self.times, since - 1e-6)), len(self.times) - 1)
        one, away = self.thumbnails[empty], self.thumbnails[far]
        return _difference(one, self.thumbnails[empty + step]) < HALF_WAY * _difference(one, away)

    def _grown(self, frame: int, step: int) -> int:
        """The frame at which the picture, more marked from frame to frame, is whole."""
        begin = frame
        while 0 <= frame + step < len(self.times):
            grows = self.spread[frame + step] > 1.01 * self.spread[frame]
            if not grows or abs(self.times[frame + step] - self.times[begin]) > MAX_FADE_SECONDS:
                break
            frame += step
        return frame


def _difference(one: UInt8[ndarray, " d"], other: UInt8[ndarray, " d"]) -> float:
    return float(np.abs(one.astype(np.int16) - other).mean())


def _spaced(found: list[Transition], times: Float[ndarray, " n"]) -> list[Transition]:
    """Without those less than a shot after the one before; the source may begin within a shot."""
    kept: list[Transition] = []
    for one in sorted(found):
        since = times[kept[-1].end] + MIN_SHOT_SECONDS - 1e-6 if kept else times[0]
        if one.begin > 0 and times[one.begin] >= since:
            kept.append(one)
    return kept
