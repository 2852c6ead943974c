import gc
import io
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from avdata.errors import CorruptShard
from avdata.pipeline.shards.npy import read_npy, require_header

SHAPE = (4, 12)
THREADS = 8


def a_file(dtype: str = "<f2") -> bytes:
    file = io.BytesIO()
    np.save(file, np.ones(SHAPE, dtype))
    return file.getvalue()


def header_of(file: bytes) -> bytes:
    return file[: file.index(b"\n") + 1]


WRITTEN_BY_OTHERS = header_of(a_file()).replace(b"': ", b"' :")
"""The same facts, but not as numpy writes them."""


class Cycle:
    """Found by a collection only, which then runs code that may hand over to another thread."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        for _ in range(200):
            pass


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads change and garbage is collected at every opportunity."""
    interval, threshold = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(5)
    yield
    gc.set_threshold(*threshold)
    sys.setswitchinterval(interval)


@pytest.mark.parametrize(
    "read",
    [
        lambda: require_header(header_of(a_file()), SHAPE, "a"),
        lambda: require_header(WRITTEN_BY_OTHERS, SHAPE, "a"),
        lambda: read_npy(a_file()),
    ],
    ids=["header", "header of others", "array"],
)
@pytest.mark.usefixtures("restless")
def test_many_threads_read_at_once(read: Callable[[], object]) -> None:
    def often() -> None:
        for _ in range(300):
            Cycle()
            read()

    with ThreadPoolExecutor(THREADS) as pool:
        for one in [pool.submit(often) for _ in range(THREADS)]:
            one.result()


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (header_of(a_file("<f4")), r"float32 \(4, 12\), the index says float16 \(4, 12\)"),
        (header_of(a_file()).replace(b"12", b"13"), r"float16 \(4, 13\)"),
        (b"not an array", "is no array"),
        (header_of(a_file())[:20], "is no array"),
    ],
)
def test_a_header_of_something_else_is_named(header: bytes, words: str) -> None:
    with pytest.raises(CorruptShard, match=f"k.video.npy.*{words}"):
        require_header(header, SHAPE, "k.video.npy")
