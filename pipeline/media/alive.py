"""Word of a long call that it gets on, by which its deadline tells a film of hours from a hang."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_listening: list[Callable[[], None]] = []


def getting_on() -> None:
    """Whoever works for long says so now and then; in a child process its deadline begins anew."""
    for tell in _listening:
        tell()


@contextmanager
def told(tell: Callable[[], None]) -> Iterator[None]:
    """Calls `tell` whenever somebody in the block gets on."""
    _listening.append(tell)
    try:
        yield
    finally:
        _listening.remove(tell)
