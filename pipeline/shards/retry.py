"""Reads that may fail and succeed the next time: so many attempts, further and further apart."""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from avdata.errors import CorruptShard, RunError
from avdata.pipeline.shards.store import Transient

T = TypeVar("T")
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
REREADS = 2
"""Of bytes that are not those that were written: the way here may have changed them."""

_SPREAD = random.SystemRandom()
"""Not the module's own numbers, which are the user's to seed."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """How persistent a reader is."""

    count: int = 8
    on_retry: Callable[[], None] = lambda: None

    def __call__(self, read: Callable[[], T], stop: threading.Event | None = None) -> T:
        """What `read` gives; `stop` ends the waiting, when nobody wants the bytes any more.

        RunError when the store does not answer in any attempt; CorruptShard when it keeps giving
        other bytes than were written.
        """
        stop = stop or threading.Event()
        damaged, unanswered = 0, 0
        while True:
            try:
                return read()
            except CorruptShard:
                damaged += 1
                if damaged > REREADS:
                    raise
            except Transient as error:
                unanswered += 1
                if unanswered >= self.count or stop.is_set():
                    raise RunError(f"{error}; no answer in {unanswered} attempts") from error
                _pause(unanswered - 1, stop)
            self.on_retry()


def _pause(number: int, stop: threading.Event) -> None:
    pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**number)
    # Spread, so that a thousand readers do not come back in one moment.
    stop.wait(pause * _SPREAD.uniform(0.75, 1.25))
