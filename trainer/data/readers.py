"""Threads that read, for which nothing waits but the one that asked.

An executor's are waited for by the interpreter's end. After an error whose traceback keeps batches
open that would be minutes where a store is away, and the other processes would wait as long.
"""

import atexit
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue

from avdata.errors import UsageError

LAST_SECONDS = 0.5
"""Given to each thread at the interpreter's end, after which it goes with the process."""
Jobs = SimpleQueue[tuple[Future[None], Callable[[], None]] | None]


class Readers:
    """So many threads; to be closed."""

    def __init__(self, count: int) -> None:
        self.closed = threading.Event()
        """Nobody wants what they still do."""
        self._process = os.getpid()
        self._jobs: Jobs = SimpleQueue()
        self._threads = [
            threading.Thread(target=_work, args=(self._jobs,), name=f"reader-{k}", daemon=True)
            for k in range(count)
        ]
        for thread in self._threads:
            thread.start()
        atexit.register(self._end)

    def submit(self, job: Callable[[], None]) -> Future[None]:
        """Jobs are begun in order."""
        future: Future[None] = Future()
        self._jobs.put((future, job))
        return future

    def wait(self, reads: Sequence[Future[None]]) -> None:
        """Until they are done; raises what they did, and UsageError in a forked process."""
        if os.getpid() != self._process:
            raise UsageError("batches were begun in another process, whose threads read them")
        for one in reads:
            one.result()

    def close(self, seconds: float | None = None) -> None:
        """Waits for what was given to them, so long at most for each thread."""
        atexit.unregister(self._end)
        self.closed.set()
        threads, self._threads = self._threads, []
        for _ in threads:
            self._jobs.put(None)
        for thread in threads:
            thread.join(seconds)

    def _end(self) -> None:
        self.close(LAST_SECONDS)


def _work(jobs: Jobs) -> None:
    while (given := jobs.get()) is not None:
        future, job = given
        try:
            job()
        except BaseException as error:  # noqa: BLE001 (it is raised where the result is wanted)
            future.set_exception(error)
        else:
            future.set_result(None)
        del given, future, job  # Its batch is not this thread's to keep.
