"""Work begun before its result is asked for, so that whoever asks need not wait."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def ahead(
    work: Callable[[T], R], items: Iterable[T], count: int, threads: int
) -> Iterator[Iterator[R]]:
    """`work` of each item, in order, up to `count` results beyond the one that was taken last.

    For work that leaves the interpreter, such as decoding. What it raises is raised in its turn; on
    leaving, what has not begun is dropped and what has begun is waited for.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="ahead") as pool:
        try:
            yield _results(pool, work, items, count)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _results(
    pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T], count: int
) -> Iterator[R]:
    begun: deque[Future[R]] = deque()
    for item in items:
        begun.append(pool.submit(work, item))
        if len(begun) > count:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()
