"""Numbers as people read them: a unit of fitting size and no more digits than mean something."""

import math


def duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h"


def size(num_bytes: float) -> str:
    """Bytes with a decimal prefix."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} TB"


def share(part: float, whole: float) -> str:
    """A percentage; a dash of nothing."""
    return f"{100 * part / whole:.1f} %" if whole else "\N{EN DASH}"


def number(value: float) -> str:
    """Four significant digits, whole from ten thousand up."""
    if not math.isfinite(value):
        return "not finite"
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def plural(count: int, noun: str) -> str:
    """`1 clip`, `1,024 clips`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
