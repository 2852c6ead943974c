"""Progress of what takes longer than a second: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 5.0


class Advance(Protocol):
    """Call it when one more is done."""

    def __call__(self, note: str = "", by: int = 1, work: int = 0) -> None:
        """`note` is shown beside the bar; `work` is what these were of the work in all."""


@contextmanager
def progress(what: str, total: int, start: int = 0, work: int = 0) -> Iterator[Advance]:
    """Shows `what` on standard error from `start` to `total`.

    The time left is told from `work` where that is given, in any unit: it is for things of very
    different size.
    """
    console = Console(stderr=True)
    with (
        _bar(console, what, total, start, work)
        if console.is_terminal
        else _lines(what, total, start, work) as advance
    ):
        yield advance


@contextmanager
def _bar(console: Console, what: str, total: int, start: int, work: int) -> Iterator[Advance]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[done]}/{task.fields[all]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        by_work, done = work > 0, start
        whole, first = (work, 0) if by_work else (total, start)
        task = bar.add_task(what, total=whole, completed=first, note="", done=done, all=total)

        def advance(note: str = "", by: int = 1, work: int = 0) -> None:
            nonlocal done
            done += by
            bar.update(task, advance=work if by_work else by, note=note, done=done)

        yield advance


@contextmanager
def _lines(what: str, total: int, start: int, work: int) -> Iterator[Advance]:
    done, began, by_work = start, time.monotonic(), work > 0
    shown, worked, whole = began, 0, work if by_work else total - start

    def advance(note: str = "", by: int = 1, work: int = 0) -> None:
        nonlocal done, shown, worked
        done, worked = done + by, worked + (work if by_work else by)
        now = time.monotonic()
        if done < total and now - shown < SECONDS_BETWEEN_LINES:
            return
        shown = now
        left = f", {(now - began) / worked * (whole - worked):.0f} s left" if worked else ""
        sys.stderr.write(f"{what} {done}/{total}{left} {note}".rstrip() + "\n")
        sys.stderr.flush()

    yield advance
