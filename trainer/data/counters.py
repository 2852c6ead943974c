"""What a loader has done so far, counted by all of its threads."""

import threading
from collections import deque

import numpy as np

NAMES = ("samples", "bytes", "reads", "retries", "cache_hits", "cache_misses", "substitutes")
RECENT = 4096
"""Samples over which the percentiles are taken."""


class Counters:
    """Counts, and how long reading samples took; `reads` are ranges asked of the store."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys((*NAMES, "wait_seconds"), 0.0)
        self._recent: deque[float] = deque(maxlen=RECENT)

    def add(self, name: str, amount: float = 1) -> None:
        """To one of `NAMES` or to `wait_seconds`."""
        with self._lock:
            self._counts[name] += amount

    def read(self, num_bytes: int, seconds: float) -> None:
        """One sample has been read, however many attempts it took."""
        with self._lock:
            self._counts["samples"] += 1
            self._counts["bytes"] += num_bytes
            self._recent.append(seconds)

    def snapshot(self) -> dict[str, float]:
        """All counts, and the median and the 99th percentile of the recent samples, in ms."""
        with self._lock:
            found, recent = dict(self._counts), np.array(self._recent)
        if len(recent):
            found["read_p50_ms"], found["read_p99_ms"] = np.percentile(recent, [50, 99]) * 1000
        return {name: float(value) for name, value in found.items()}
