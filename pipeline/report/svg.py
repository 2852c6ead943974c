"""Matplotlib figures as inline SVG that takes font and colours from the page's style sheet.

A chart is painted in stand-in colours; each becomes a CSS variable, so one picture serves light
and dark. One SVG unit is one CSS pixel. Equal figures give equal bytes.
"""

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from avdata import storage

NUM_SERIES = 6
_SERIES = [f"series-{n}" for n in range(1, NUM_SERIES + 1)]
_COLOURS = ("ink", "muted", "rule", "kept", "dropped", "accent", *_SERIES)
_PIXELS_PER_INCH = 72
LONGEST_LABEL = 28
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def colour(name: str) -> str:
    """The stand-in for a colour of the style sheet."""
    return f"#a7{_COLOURS.index(name):02x}e5"


@dataclass(frozen=True, slots=True)
class Frame:
    """A chart's size and its margins, in CSS pixels."""

    width: int
    height: int
    left: int = 44
    right: int = 12
    top: int = 10
    bottom: int = 36


SMALL = Frame(290, 180)


def draw(frame: Frame, alt: str, paint: Callable[[Axes], None]) -> Markup:
    """What `paint` draws on a pair of axes; `alt` says it in words."""
    settings = cast(Any, _settings())  # Newer Matplotlibs list every key in the type.
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # The browser has glyphs that Matplotlib's own font, used for measuring, has not.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(frame.width / _PIXELS_PER_INCH, frame.height / _PIXELS_PER_INCH))
        wide, high = frame.width - frame.left - frame.right, frame.height - frame.top - frame.bottom
        paint(
            figure.add_axes(
                (
                    frame.left / frame.width,
                    frame.bottom / frame.height,
                    wide / frame.width,
                    high / frame.height,
                )
            )
        )
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata=_NO_METADATA, transparent=True)
    return _inline(out.getvalue(), frame, alt)


def shortened(label: str) -> str:
    """As much of a name as a chart has room for."""
    return label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1] + "…"


def _settings() -> dict[str, Any]:
    muted, rule = colour("muted"), colour("rule")
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "avdata",
        "text.parse_math": False,  # A dollar sign in a name is a dollar sign.
        "font.size": 12,
        "text.color": colour("ink"),
        "axes.edgecolor": rule,
        "axes.labelcolor": muted,
        "axes.labelsize": 12,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.formatter.use_mathtext": False,
        "grid.color": rule,
        "grid.linewidth": 0.7,
        "xtick.color": rule,
        "ytick.color": rule,
        "xtick.labelcolor": muted,
        "ytick.labelcolor": muted,
        "ytick.major.size": 0,
        "lines.solid_capstyle": "round",
    }


def _inline(document: str, frame: Frame, alt: str) -> Markup:
    """Without what belongs to a file of its own: prologue, namespaces, style sheet, fonts."""
    body = document[document.index("</defs>") + len("</defs>") : document.rindex("</svg>")]
    body = re.sub(r'font-family: [^;"]*;? ?', "", body)
    body = re.sub(r' transform="rotate\(-0 [^"]*"', "", body)
    body = re.sub("#a7([0-9a-f]{2})e5", lambda m: f"var(--{_COLOURS[int(m[1], 16)]})", body)
    # Ids of different charts differ, lest one refer into another; equal charts may share theirs.
    own = storage.digest_bytes(body.encode())[:8]
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda m: f' id="{own}-{m[1]}"' if m[1] in used else "", body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{own}-", body)
    return Markup(
        '<svg class="chart" role="img" aria-label="{}" '
        'viewBox="0 0 {} {}" style="--natural: {}px">{}</svg>'
    ).format(alt, frame.width, frame.height, frame.width, Markup(body))
