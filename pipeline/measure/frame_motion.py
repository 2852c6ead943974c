"""What moves in each frame of a source, kept until its end is known.

The picture is a grid of cells. Units are frame heights per second, so that thresholds do not depend
on size or rate.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from avdata.pipeline.media.spool import Spool

GRID_ROWS, GRID_COLUMNS = 9, 16


def _everywhere() -> Bool[ndarray, "rows columns"]:
    return np.ones((GRID_ROWS, GRID_COLUMNS), np.bool_)


@dataclass(frozen=True, slots=True)
class FrameMotion:
    """One frame's flow from the frame before it."""

    velocity: Float[ndarray, "rows columns 2"]
    """Mean velocity (x, y) of the moving pixels of each cell; zero where none move."""
    moving: Float[ndarray, "rows columns"]
    """Share of each cell that moves."""
    camera_speed: float
    luma: float = 255.0
    """Mean of the picture, 0 black to 255 white."""
    explained: Bool[ndarray, "rows columns"] = field(default_factory=_everywhere)
    """Whether the flow leads from one picture to the other: not where light changes."""
    evident: Bool[ndarray, "rows columns"] = field(default_factory=_everywhere)
    """Whether more changes than noise and light do. Contacts do not ask: they look for what stands
    out, and few would be left of those in a shaking picture."""

    @property
    def momentum(self) -> Float[ndarray, "rows columns 2"]:
        """Velocity times what of the cell moves, where the flow explains what changed."""
        counts: Float[ndarray, "rows columns"] = self.moving * self.explained
        return np.asarray(self.velocity * counts[..., None])


class Frames(Protocol):
    """Motions of consecutive frames, of which any span can be had: a list, or more than fits."""

    def __len__(self) -> int: ...

    def __getitem__(self, span: slice, /) -> list[FrameMotion]: ...


def still() -> FrameMotion:
    """The motion of a frame that has none, or none before it."""
    return FrameMotion(
        np.zeros((GRID_ROWS, GRID_COLUMNS, 2), np.float32),
        np.zeros((GRID_ROWS, GRID_COLUMNS), np.float32),
        0.0,
    )


class MotionSpool:
    """The motions of all frames of a source, kept as a `Spool` keeps them."""

    def __init__(self) -> None:
        grid = (GRID_ROWS, GRID_COLUMNS)
        self._rows = Spool(
            [
                ("velocity", np.float32, (*grid, 2)),
                ("moving", np.float32, grid),
                ("camera_speed", np.float64),
                ("luma", np.float64),
                ("explained", np.bool_, grid),
                ("evident", np.bool_, grid),
            ]
        )
        self._replaced: dict[int, FrameMotion] = {}

    def append(self, one: FrameMotion) -> None:
        """The next frame's."""
        row = (
            one.velocity,
            one.moving,
            one.camera_speed,
            one.luma,
            one.explained,
            one.evident,
        )
        self._rows.append(np.array([row], self._rows.kind))

    def replace(self, at: int, one: FrameMotion) -> None:
        """That of a frame by another; for few of them."""
        self._replaced[at] = one

    def between(self, low: int, high: int) -> Frames:
        """Those of some frames, read when asked for."""
        return _Between(self, low, high)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, span: slice, /) -> list[FrameMotion]:
        rows, first = self._rows[span], span.indices(len(self))[0]
        found = [
            FrameMotion(*parts)
            for parts in zip(
                rows["velocity"],
                rows["moving"],
                rows["camera_speed"].tolist(),
                rows["luma"].tolist(),
                rows["explained"],
                rows["evident"],
                strict=True,
            )
        ]
        for at in self._replaced.keys() & range(first, first + len(found)):
            found[at - first] = self._replaced[at]
        return found


@dataclass(frozen=True, slots=True)
class _Between:
    spool: MotionSpool
    low: int
    high: int

    def __len__(self) -> int:
        return self.high - self.low

    def __getitem__(self, span: slice, /) -> list[FrameMotion]:
        low, high, _ = span.indices(len(self))
        return self.spool[self.low + low : self.low + max(low, high)]
