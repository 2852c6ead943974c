"""Progress of what takes longer than a second: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 5.0


class Advance(Protocol):
    """Call it when one more is done."""

    def __call__(self, note: str = "", by: int = 1) -> None:
        """`note` is shown beside the bar."""


@contextmanager
def progress(what: str, total: int, start: int = 0) -> Iterator[Advance]:
    """Shows `what` on standard error from `start` to `total`."""
    console = Console(stderr=True)
    with (
        _bar(console, what, total, start)
        if console.is_terminal
        else _lines(what, total, start) as advance
    ):
        yield advance


@contextmanager
def _bar(console: Console, what: str, total: int, start: int) -> Iterator[Advance]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=total, completed=start, note="")

        def advance(note: str = "", by: int = 1) -> None:
            bar.update(task, advance=by, note=note)

        yield advance


@contextmanager
def _lines(what: str, total: int, start: int) -> Iterator[Advance]:
    done, began = start, time.monotonic()
    shown = began

    def advance(note: str = "", by: int = 1) -> None:
        nonlocal done, shown
        done += by
        now = time.monotonic()
        if done < total and now - shown < SECONDS_BETWEEN_LINES:
            return
        shown = now
        left = (now - began) / max(1, done - start) * (total - done)
        sys.stderr.write(f"{what} {done}/{total}, {left:.0f} s left {note}".rstrip() + "\n")
        sys.stderr.flush()

    yield advance
