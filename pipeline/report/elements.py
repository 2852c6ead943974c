"""The page's few building blocks. Everything that is not `Markup` is escaped on its way in."""

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup, escape
from numpy import ndarray
from numpy.typing import NDArray

from avdata.pipeline.report import units

Cell = str | int | float | None


def joined(parts: Iterable[Markup]) -> Markup:
    """One after another."""
    return Markup("\n").join(parts)


def heading(text: str) -> Markup:
    """Inside a section."""
    return Markup("<h3>{}</h3>").format(text)


def note(text: str | Markup) -> Markup:
    """Something the reader should know: what is missing, how to read a picture."""
    return Markup('<p class="note">{}</p>').format(text)


def place(*paths: Path) -> Markup:
    """The folders that a section is about."""
    names = Markup("<br>").join(Markup("<code>{}</code>").format(path) for path in paths)
    return Markup('<p class="path">{}</p>').format(names)


def tiles(items: Sequence[tuple[str, str, str]]) -> Markup:
    """Big numbers: (what, number, a word on it)."""
    one = Markup("<div><dt>{}</dt><dd><strong>{}</strong> <span>{}</span></dd></div>")
    return Markup('<dl class="tiles">{}</dl>').format(joined(one.format(*item) for item in items))


def table(
    head: Sequence[str], rows: Sequence[Sequence[Cell]], label: str, num_text: int = 1
) -> Markup:
    """The first `num_text` columns hold text, the others numbers that line up on the right."""
    titles = joined(
        Markup('<th scope="col"{}>{}</th>').format(_numeric(at >= num_text), title)
        for at, title in enumerate(head)
    )
    body = joined(Markup("<tr>{}</tr>").format(_row(row, num_text)) for row in rows)
    # Focusable, so that the keyboard can scroll what a narrow window cuts off.
    return Markup(
        '<div class="scroll" role="region" tabindex="0" aria-label="{}">'
        "<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>"
    ).format(label, titles, body)


def figure(picture: Markup, title: str, text: str | Markup = "", wide: bool = False) -> Markup:
    """A chart under its title; a wide one scrolls on a narrow window instead of shrinking."""
    if wide:
        picture = Markup(
            '<div class="canvas" role="region" tabindex="0" aria-label="{}">{}</div>'
        ).format(title, picture)
    return Markup(
        "<figure><figcaption><strong>{}</strong> <span>{}</span></figcaption>{}</figure>"
    ).format(title, text, picture)


def charts(figures: Iterable[Markup], wide: bool = False) -> Markup:
    """Small charts side by side as the window allows."""
    kind = "pairs" if wide else "charts"
    return Markup('<div class="{}">{}</div>').format(kind, joined(figures))


def legend(keys: Sequence[tuple[str, str]]) -> Markup:
    """What the colours mean: (name of a colour in the style sheet, what it stands for)."""
    one = Markup('<li><i style="background: var(--{})"></i>{}</li>')
    return Markup('<ul class="legend">{}</ul>').format(joined(one.format(*key) for key in keys))


def folded(title: str, body: Markup) -> Markup:
    """Shown when asked for."""
    return Markup("<details><summary>{}</summary>{}</details>").format(title, body)


def badge(text: str, kind: str = "plain") -> Markup:
    """A short label."""
    return Markup('<span class="badge {}">{}</span>').format(kind, text)


def picture(rgb: NDArray[np.uint8], alt: str) -> Markup:
    """(h, w, 3) as a JPEG inside the page."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 82])
    assert done, "JPEG encoding of 8-bit RGB cannot fail"
    source = "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
    height, width = rgb.shape[:2]
    image = Markup('<img alt="{}" width="{}" height="{}" src="{}">')
    return image.format(alt, width, height, source)


def strip(frames: UInt8[ndarray, "n h w 3"], fps: float, count: int) -> Markup:
    """Some frames, from the first to the last, each with its time."""
    at = np.linspace(0, len(frames) - 1, count).round().astype(int)
    shown = (picture(frames[index], f"Frame at {index / fps:.2f} s") for index in at)
    return Markup('<div class="strip">{}</div>').format(Markup("").join(shown))


def _row(row: Sequence[Cell], num_text: int) -> Markup:
    return joined(
        Markup("<td{}>{}</td>").format(_numeric(at >= num_text), _cell(cell))
        for at, cell in enumerate(row)
    )


def _numeric(yes: bool) -> Markup:
    return Markup(' class="number"') if yes else Markup("")


def _cell(cell: Cell) -> Markup:
    if cell is None:
        return Markup('<span class="none">\N{EN DASH}</span>')
    if isinstance(cell, int):
        return escape(f"{cell:,}")
    return escape(units.number(cell) if isinstance(cell, float) else cell)
