"""Puts sections into one HTML file that needs nothing outside itself, the network least of all."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from avdata import storage

TEMPLATE = Path(__file__).with_name("page.html")
STYLE = Path(__file__).with_name("page.css")


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page."""

    title: str
    body_html: Markup
    anchor: str
    """Unique on its page."""


def write_report(path: Path, sections: Sequence[Section], title: str) -> Path:
    """Commits the page; equal sections give equal bytes, so it has no date."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(TEMPLATE.read_text()).render(
        title=title,
        sections=sections,
        style=Markup(STYLE.read_text()),
    )
    with storage.committed(path) as temporary:
        # A file name need not be valid Unicode.
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
    return path
