"""Bars and borders: lines along the sides of the picture that carry nothing, throughout a clip."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, UInt8
from numpy import ndarray

BLACK = 40
"""Brightest pixel of a line that is black; video black is 16, its grain some more."""
UNIFORM = 16
"""Brightest minus darkest pixel of a line of one colour, and how far lines may be apart."""


@dataclass(frozen=True, slots=True)
class Sides:
    """One frame's part: lines from the top, bottom, left and right."""

    black: Int[ndarray, " 4"]
    uniform: Int[ndarray, " 4"]
    level: Int[ndarray, " 4"]
    """Luma of the outermost line of each side."""
    height: int
    width: int


def sides(luma: UInt8[ndarray, "h w"]) -> Sides:
    """How deep black lines, and lines of one colour, reach from each side."""
    black, uniform, level = [], [], []
    for across in (1, 0):
        low, high = luma.min(axis=across).astype(int), luma.max(axis=across).astype(int)
        for order in (slice(None), slice(None, None, -1)):
            least, most = low[order], high[order]
            black.append(_depth(most <= BLACK))
            uniform.append(_depth((most - least[0] <= UNIFORM) & (most[0] - least <= UNIFORM)))
            level.append(int(most[0]))
    height, width = luma.shape
    return Sides(np.array(black), np.array(uniform), np.array(level), height, width)


def letterbox_share(frames: list[Sides]) -> float | None:
    """Share of the picture in black lines that stay black; None where it is black altogether."""
    seen = [frame for frame in frames if (frame.black < _lengths(frame)).all()]
    if not seen:
        return None
    return _area(np.min([frame.black for frame in seen], axis=0), seen[0])


def border_share(frames: list[Sides]) -> float | None:
    """Share of the picture in a border of one lasting colour, black or not, on opposite sides.

    A plain background that fills two opposite sides counts, too. None where nothing but one colour
    is ever seen.
    """
    seen = [frame for frame in frames if (frame.uniform < _lengths(frame)).all()]
    if not seen:
        return None
    depth = np.min([frame.uniform for frame in seen], axis=0)
    levels = np.array([frame.level for frame in seen])
    lasting = np.ptp(levels, axis=0) <= UNIFORM
    for pair in ((0, 1), (2, 3)):
        alike = np.ptp(levels[:, pair]) <= UNIFORM
        if not (alike and lasting[list(pair)].all() and depth[list(pair)].all()):
            depth[list(pair)] = 0
    return _area(depth, seen[0])


def _depth(lines: Bool[ndarray, " n"]) -> int:
    return len(lines) if lines.all() else int(np.argmin(lines))


def _lengths(frame: Sides) -> Int[ndarray, " 4"]:
    return np.array([frame.height, frame.height, frame.width, frame.width])


def _area(depth: Int[ndarray, " 4"], frame: Sides) -> float:
    rows = 1 - min(1.0, (depth[0] + depth[1]) / frame.height)
    columns = 1 - min(1.0, (depth[2] + depth[3]) / frame.width)
    return float(1 - rows * columns)
