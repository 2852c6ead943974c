"""Line charts: several series over one axis, raw values and their smoothing, names at the ends."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike, NDArray

from avdata.pipeline.report import units
from avdata.pipeline.report.svg import NUM_SERIES, SMALL, Frame, colour, draw, shortened

MAX_POINTS = 1200
LABEL_GAP = 14
DASHES = ("solid", (0, (5, 2)), (0, (1, 1.5)))
"""Told apart by these once the colours are used up."""
MEDIUM = Frame(470, 200)
WIDE = Frame(1030, 300)

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Line:
    """One series; `smooth`, where there is one, is drawn over the raw values, not instead."""

    label: str
    x: ArrayLike
    y: ArrayLike
    smooth: ArrayLike | None = None


def line_chart(
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    frame: Frame = SMALL,
    *,
    from_zero: bool = False,
) -> Markup:
    """Several series, each named at its end rather than in a legend; one alone is not named."""
    longest = max(len(shortened(line.label)) for line in lines) if len(lines) > 1 else 0
    frame = dataclasses.replace(frame, left=56, right=16 + 7 * longest)

    def paint(axes: Axes) -> None:
        ends = [_plot(axes, line, at) for at, line in enumerate(lines)]
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.margins(x=0.01)
        if from_zero:
            axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator((frame.width - frame.left - frame.right) // 75))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(_tick))
        if len(lines) > 1:
            _name_ends(axes, [end for end in ends if end is not None], frame)

    alt = f"{y_label} over {x_label}: {', '.join(_said(line) for line in lines)}"
    return draw(frame, alt, paint)


def smoothed(values: ArrayLike, window: int) -> Numbers:
    """Centred mean over `window` values, fewer at the ends and where some are not finite."""
    y = np.asarray(values, float)
    known = np.isfinite(y)
    ones = np.ones(min(window, len(y)))
    total = np.convolve(np.where(known, y, 0.0), ones, "same")
    count = np.convolve(known.astype(float), ones, "same")
    mean: Numbers = np.where(count > 0.5, total / np.maximum(count, 1), np.nan)
    return mean


def _said(line: Line) -> str:
    known = np.asarray(line.y, float)
    known = known[np.isfinite(known)]
    ends = [units.number(value) for value in (*known[:1], *known[-1:])]
    return " ".join([line.label, *(["from", ends[0], "to", ends[1]] if ends else [])])


def _plot(axes: Axes, line: Line, at: int) -> tuple[float, str, str] | None:
    """Draws one series; answers where it ends, its name and its colour."""
    tone = colour(f"series-{at % NUM_SERIES + 1}")
    x, raw = np.asarray(line.x, float), np.asarray(line.y, float)
    main = raw
    if line.smooth is not None:
        axes.plot(*_thinned(x, raw), color=tone, alpha=0.35, linewidth=0.8)
        main = np.asarray(line.smooth, float)
    known = np.flatnonzero(np.isfinite(main))
    axes.plot(
        *_thinned(x, main),
        color=tone,
        linewidth=1.8,
        linestyle=DASHES[at // NUM_SERIES % len(DASHES)],
        marker="o" if len(known) < 25 else None,
        markersize=3.5,
    )
    if not len(known):
        return None
    return float(main[known[-1]]), line.label, tone


def _name_ends(axes: Axes, ends: list[tuple[float, str, str]], frame: Frame) -> None:
    """Writes each name beside its line's end, moved off its neighbours and kept inside."""
    low, high = axes.get_ylim()
    gap = (high - low) * LABEL_GAP / (frame.height - frame.top - frame.bottom)
    right = axes.get_xlim()[1]
    ends = sorted(ends)
    heights = [y for y, _, _ in ends]
    for at in range(1, len(ends)):
        heights[at] = max(heights[at], heights[at - 1] + gap)
    for at in reversed(range(len(ends))):
        heights[at] = min(heights[at], high - gap * (len(ends) - 1 - at))
    for height, (_, label, tone) in zip(heights, ends, strict=True):
        axes.annotate(
            shortened(label),
            (right, height),
            (5, 0),
            textcoords="offset points",
            color=tone,
            va="center",
            annotation_clip=False,
        )


def _thinned(x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
    """At most MAX_POINTS points, the lowest and highest of each stretch among them."""
    if len(y) <= MAX_POINTS:
        return x, y
    keep: set[int] = {0, len(y) - 1}
    for chunk in np.array_split(np.arange(len(y)), MAX_POINTS // 2):
        known = chunk[np.isfinite(y[chunk])]
        keep |= {int(known[pick(y[known])]) for pick in (np.argmin, np.argmax) if len(known)}
    order = sorted(keep)
    return x[order], y[order]


def _tick(value: float, _: object) -> str:
    return units.number(value).replace("-", "\N{MINUS SIGN}")
