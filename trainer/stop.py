"""Reasons to stop before the last step: a signal, a launcher that is gone, a deadline."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """What this process has been told; processes agree on it once a step."""

    def __init__(self, minutes: float | None) -> None:
        self._signals: list[int] = []
        self._launcher = os.getppid()
        self._deadline = None if minutes is None else time.monotonic() + 60 * minutes

    def asked(self) -> bool:
        """Whether the run should save and end."""
        late = self._deadline is not None and time.monotonic() > self._deadline
        return bool(self._signals) or late or self._orphaned()

    def hear(self, number: int, _frame: FrameType | None) -> None:
        """A signal's handler."""
        self._signals.append(number)

    def _orphaned(self) -> bool:
        """Whether torchrun was killed: whoever starts the run again must find no one writing it."""
        return "RANK" in os.environ and os.getppid() != self._launcher


@contextmanager
def listening(minutes: float | None) -> Iterator[Stop]:
    """SIGTERM and SIGINT ask to stop inside the block, where this thread may hear them."""
    stop = Stop(minutes)
    if threading.current_thread() is not threading.main_thread():
        yield stop  # Of a worker of Ray Train, which ends its workers in another way.
        return
    before = {one: signal.signal(one, stop.hear) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
