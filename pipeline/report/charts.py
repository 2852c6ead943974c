"""The charts of a report, each a function from numbers to inline SVG."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike, NDArray

from avdata.pipeline.report import units
from avdata.pipeline.report.svg import SMALL, Frame, colour, draw, shortened

NUM_BINS = 32
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Step:
    """One bar of a funnel."""

    label: str
    left: int
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Waveform:
    """Sound of a clip and what was found in it, times in seconds from its start."""

    samples: Numbers
    sample_rate: int
    seconds: float
    """Of the clip, whose sound ends a frame before its picture."""
    onsets_s: Sequence[float]
    seen_s: Sequence[float]
    heard_s: Sequence[float]


def histogram(
    kept: ArrayLike,
    dropped: ArrayLike,
    x_label: str,
    marks: Sequence[float] = (),
    y_label: str = "clips",
) -> Markup:
    """Dropped stacked on kept; `marks` are thresholds, shown where they fall into the range."""
    groups = [_finite(kept), _finite(dropped)]
    edges = np.histogram_bin_edges(np.concatenate(groups), bins=NUM_BINS)
    low, high = (np.histogram(group, bins=edges)[0] for group in groups)

    def paint(axes: Axes) -> None:
        axes.stairs(low, edges, fill=True, color=colour("kept"))
        axes.stairs(low + high, edges, baseline=low, fill=True, color=colour("dropped"))
        for mark in marks:
            if edges[0] <= mark <= edges[-1]:
                axes.axvline(mark, color=colour("accent"), linewidth=1.2, linestyle=(0, (4, 2)))
        axes.set_xlim(edges[0], edges[-1])
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))

    span = f"from {units.number(edges[0])} to {units.number(edges[-1])}"
    alt = f"Histogram of {y_label} by {x_label} {span}: "
    alt += f"{len(groups[0])} kept, {len(groups[1])} dropped"
    return draw(SMALL, alt, paint)


def funnel(steps: Sequence[Step]) -> Markup:
    """What is left after each step, and what the step took, on one scale."""
    most = max(step.left + step.lost for step in steps)
    longest = max(len(shortened(step.label)) for step in steps)
    frame = Frame(1030, 16 + 26 * len(steps), left=16 + 7 * longest, right=110, top=4, bottom=4)

    def paint(axes: Axes) -> None:
        for row, step in enumerate(steps):
            axes.barh(row, step.left, height=0.62, color=colour("kept"))
            axes.barh(row, step.lost, height=0.62, left=step.left, color=colour("dropped"))
            lost = f"  \N{MINUS SIGN}{step.lost:,}" if step.lost else ""
            at = (step.left + step.lost, row)
            axes.annotate(
                f"{step.left:,}{lost}", at, (6, 0), textcoords="offset points", va="center"
            )
        axes.set_yticks(range(len(steps)), [shortened(step.label) for step in steps])
        axes.tick_params(axis="y", labelcolor=colour("ink"))
        axes.set_xlim(0, max(1, most))
        axes.set_ylim(len(steps) - 0.5, -0.5)
        axes.xaxis.set_visible(False)
        axes.grid(visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)

    said = (f"{step.label}: {step.left} left" for step in steps)
    return draw(frame, f"Funnel. {'; '.join(said)}", paint)


def waveform(wave: Waveform) -> Markup:
    """The sound's envelope, onsets as ticks above it, contacts as lines where seen and heard."""
    chunks = np.array_split(wave.samples, min(400, len(wave.samples)))
    low, high = (np.array([pick(chunk) for chunk in chunks]) for pick in (np.min, np.max))
    times = (np.arange(len(chunks)) + 0.5) * len(wave.samples) / wave.sample_rate / len(chunks)

    def paint(axes: Axes) -> None:
        axes.fill_between(times, low, high, color=colour("muted"), linewidth=0.6)
        axes.vlines(wave.seen_s, -1.05, 1.05, color=colour("series-1"), linestyle=(0, (3, 2)))
        axes.vlines(wave.heard_s, -1.05, 1.05, color=colour("accent"))
        axes.vlines(wave.onsets_s, 1.15, 1.45, color=colour("ink"))
        axes.set_xlim(0, wave.seconds)
        axes.set_ylim(-1.05, 1.45)
        axes.yaxis.set_visible(False)
        axes.grid(visible=False)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} s"))

    found = f"{len(wave.onsets_s)} onsets and {len(wave.heard_s)} contacts marked"
    frame = Frame(520, 84, left=2, right=8, top=2, bottom=20)
    return draw(frame, f"Waveform of {wave.seconds:.1f} seconds, {found}", paint)


def _finite(values: ArrayLike) -> Numbers:
    array = np.asarray(values, float)
    found: Numbers = array[np.isfinite(array)]
    return found
