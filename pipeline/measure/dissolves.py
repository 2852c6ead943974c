"""Dissolves: stretches in which every picture is a mixture of the first and the last.

With start S and end E each picture of a dissolve is (1-a) S + a E with a rising from 0 to 1. What
a camera or an object does leaves pictures that no mixture of the ends explains.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64, UInt8
from numpy import ndarray

WINDOWS_SECONDS = (2.0, 1.0, 0.5)
"""Lengths tried. The longer one shows all of a dissolve, the shorter one is less disturbed by what
moves in it, and then gives only its middle."""
MAX_RESIDUAL = 0.1
"""Share of the change's energy that the mixture may leave unexplained, in each picture."""
CLEAR_RESIDUAL = 0.02
MAX_STEP = 0.3
"""A larger step of a is a hard cut or a flash."""
MIN_CHANGE = 15.0
"""Mean difference between the ends, of 255, as the detector of cuts has it."""
MIN_STD = 8.0
"""An end with less structure is that of a fade."""
SAMPLES = 16
MIN_FRAMES = 5
AT_ONCE = 1024
"""Pictures that are compared at once: memory does not grow with the source."""
CORRELATION_FLOOR = 2.0
"""Luma noise, of 255, added to every spread: pictures without structure correlate with none."""


@dataclass(frozen=True, slots=True, order=True)
class Transition:
    """Between two shots: the frames from `begin` to before `end` are of neither; none in a cut."""

    begin: int
    end: int


def correlation(
    one: UInt8[ndarray, "n d"] | Float[ndarray, "n d"],
    other: UInt8[ndarray, "m d"] | Float[ndarray, "m d"],
) -> Float[ndarray, "n m"]:
    """Of the structure of two sets of thumbnails, blind to brightness and contrast."""
    first, second = normalised(one), normalised(other)
    products: Float[ndarray, "n m"] = first @ second.T
    return products


def correlations(one: UInt8[ndarray, "n d"], other: UInt8[ndarray, "n d"]) -> Float[ndarray, " n"]:
    """As `correlation`, of each with the one in its place."""
    found: Float[ndarray, " n"] = np.einsum("nd,nd->n", normalised(one), normalised(other))
    return found


def normalised(thumbnails: UInt8[ndarray, "n d"] | Float[ndarray, "n d"]) -> Float[ndarray, "n d"]:
    """Around zero, of length one where there is structure."""
    centred = thumbnails.astype(np.float32)
    centred -= centred.mean(axis=1, keepdims=True)
    power = np.square(centred).mean(axis=1, keepdims=True) + CORRELATION_FLOOR**2
    unit: Float[ndarray, "n d"] = centred / np.sqrt(power * centred.shape[1])
    return unit


def spreads(thumbnails: UInt8[ndarray, "n d"]) -> Float[ndarray, " n"]:
    """Standard deviation of each."""
    found = np.zeros(len(thumbnails))
    for first in range(0, len(found), AT_ONCE):
        some = slice(first, first + AT_ONCE)
        found[some] = thumbnails[some].std(axis=1)
    return found


def dissolves(
    times: Float[ndarray, " n"],
    thumbnails: UInt8[ndarray, "n d"],
    spread: Float[ndarray, " n"],
    same_shot: float,
    known: Sequence[Transition],
) -> list[Transition]:
    """Those that touch none of the `known` transitions, nor each other; the longest window in
    which one is seen places it."""
    found: list[Transition] = []
    for window in WINDOWS_SECONDS:
        begins = np.searchsorted(times, times - window - 1e-6)
        whole = (times - times[begins] > 0.9 * window) & (
            np.arange(len(times)) - begins >= MIN_FRAMES
        )
        marked = (spread > MIN_STD) & (spread[begins] > MIN_STD)
        ends = np.flatnonzero(whole & marked)
        seen: list[tuple[float, Transition]] = []
        for first in range(0, len(ends), AT_ONCE):
            some = ends[first : first + AT_ONCE]
            for end in _other_picture(thumbnails, begins[some], some, same_shot).tolist():
                begin = int(begins[end])
                if not any(one.begin <= end and one.end >= begin for one in (*known, *found)):
                    seen += _mixture(thumbnails, begin, end)
        found += _whole(seen)
    return found


def _other_picture(
    thumbnails: UInt8[ndarray, "n d"],
    begins: Int64[ndarray, " k"],
    ends: Int64[ndarray, " k"],
    same_shot: float,
) -> Int64[ndarray, " j"]:
    """Those ends that show something else than the beginnings."""
    one, other = thumbnails[begins], thumbnails[ends]
    changed = np.abs(other.astype(np.int16) - one).mean(axis=1) >= MIN_CHANGE
    alike = correlations(other[changed], one[changed])
    return np.asarray(ends[changed][alike <= same_shot])


def _mixture(
    thumbnails: UInt8[ndarray, "n d"], begin: int, end: int
) -> list[tuple[float, Transition]]:
    """The transition and what its mixtures leave unexplained; nothing when it is none."""
    frames = np.unique(np.linspace(begin, end, min(SAMPLES, end - begin + 1)).round().astype(int))
    pictures = thumbnails[frames].astype(np.float32)
    way = pictures[-1] - pictures[0]
    energy = float(way @ way)
    offsets = pictures - pictures[0]
    shares = offsets @ way / energy
    residual = float(np.square(offsets - shares[:, None] * way).sum(axis=1).max()) / energy
    steps = np.diff(shares)
    if residual > MAX_RESIDUAL or steps.max() >= MAX_STEP or steps.min() < -0.1:
        return []
    inside = frames[(shares > 0.05) & (shares < 0.95)]
    return [(residual, Transition(int(inside[0]), int(inside[-1]) + 1))] if len(inside) else []


def _whole(seen: list[tuple[float, Transition]]) -> list[Transition]:
    """Of those that overlap the longest of the clearest: a window that begins within a dissolve
    shows less of it, one that ends in a flash more."""

    def order(found: tuple[float, Transition]) -> tuple[bool, int]:
        return found[0] > CLEAR_RESIDUAL, found[1].begin - found[1].end

    kept: list[Transition] = []
    for _, one in sorted(seen, key=order):
        if all(one.end < other.begin or one.begin > other.end for other in kept):
            kept.append(one)
    return kept
