"""A column of a table on disk: rows of a `.npy` file, read when they are asked for.

Not mapped: pages that were looked at count as memory of the process until it ends, so that it would
grow to the size of the table, and a file that is cut meanwhile would kill the process. Rows are
read in blocks of 4 KB, each checked against its digest, which lie in a file beside it.
"""

import os
import tokenize
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash
from jaxtyping import Int64
from numpy import ndarray
from numpy.lib import format as numpy_format
from numpy.typing import DTypeLike, NDArray

from avdata.errors import RunError
from avdata.pipeline.shards.store import MAY_PASS

BLOCK_BYTES = 1 << 12
"""At most: a page of memory."""
MOST_ROWS = 1 << 16
"""That are read at once where neighbours are asked for."""
DIGEST = np.dtype(np.uint64)
"""xxh3-64 of a block."""


class Column:
    """One-dimensional; any number of threads may ask."""

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        """OSError or ValueError where it is no file of that type, or not a whole one; the type `S`
        stands for bytes of any length.
        """
        self._path = path
        with _opened(path, dtype) as (file, self._count, self._dtype):
            self._start, self._size = file.tell(), self._dtype.itemsize
            if os.fstat(file.fileno()).st_size != self._start + self._count * self._size:
                raise ValueError(f"{path}: not whole")
            self._rows = _rows_of_a_block(self._size)
            with _opened(_beside(path), DIGEST) as (digests, _, _):
                self._digests = np.frombuffer(digests.read(), DIGEST).data
            if len(self._digests) != -(-self._count // self._rows):
                raise ValueError(f"{_beside(path)}: {len(self._digests)} digests")
            self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return int(self._count)

    def __getitem__(self, rows: "slice | Int64[ndarray, ' some']") -> NDArray[Any]:
        """A copy of some rows, each at least 0 and below the length, or of a slice without a step;
        RunError where they are not those that were written, or cannot be read.
        """
        if isinstance(rows, slice):
            first, last, step = rows.indices(len(self))
            if step != 1:
                raise ValueError(f"rows with a step of {step}: only neighbours are read")
            reads = [(at, min(last, at + MOST_ROWS)) for at in range(first, last, MOST_ROWS)]
            return np.frombuffer(b"".join([self._read(*one) for one in reads]), self._dtype)
        found = np.empty(len(rows), f"V{self._size}")
        order = rows.argsort()
        rising = rows[order]
        # What lies in neighbouring blocks is one read.
        apart = (np.diff(rising // self._rows) > 1) | (np.diff(rising // MOST_ROWS) != 0)
        bounds = [0, *(np.flatnonzero(apart) + 1).tolist(), len(rows)]
        for begin, end in pairwise(bounds[1:] if len(rows) == 0 else bounds):
            first = int(rising[begin])
            read = np.frombuffer(self._read(first, int(rising[end - 1]) + 1), found.dtype)
            found[order[begin:end]] = read[rising[begin:end] - first]
        return found.view(self._dtype)

    def _read(self, first: int, last: int) -> memoryview:
        """The bytes of rows `first` to `last` - 1."""
        block, size = first // self._rows, self._rows * self._size
        begin = block * size
        wanted = min(-(-last // self._rows) * size, self._count * self._size) - begin
        try:
            data = memoryview(os.pread(self._file, wanted, self._start + begin))
        except OSError as error:
            raise may_pass(self._path, error) or self._damaged() from error
        if len(data) != wanted:
            raise self._damaged()
        for number, at in enumerate(range(0, wanted, size), block):
            if xxhash.xxh3_64_intdigest(data[at : at + size]) != self._digests[number]:
                raise self._damaged()
        return data[first * self._size - begin : last * self._size - begin]

    def _damaged(self) -> RunError:
        """It goes, so that the table is made again, but not one that has come into its place."""
        with suppress(OSError):
            if os.path.samestat(os.fstat(self._file), self._path.stat()):
                self._path.unlink()
        return RunError(
            f"{self._path}: does not have the bytes that were written; the shards are not at "
            f"fault. Start again: this table is made again from their indices, once "
            f"{self._path.parent} is deleted where that could not be done here"
        )


def may_pass(path: Path, error: OSError) -> RunError | None:
    """What to raise where a part of a table cannot be read now and is not damaged, else None."""
    if error.errno not in MAY_PASS:
        return None
    return RunError(f"{path}: cannot be read ({error.strerror}); start again once that has passed")


def write_column(path: Path, dtype: DTypeLike, count: int) -> "np.memmap[Any, Any]":
    """A new column to fill in, and then to `seal`."""
    return numpy_format.open_memmap(path, "w+", np.dtype(dtype), (count,), version=(1, 0))


def seal(path: Path, dtype: np.dtype[Any]) -> None:
    """Writes the digests of a column that is whole, of the type that it will be read as."""
    with _opened(path, dtype) as (file, count, found):
        rows = _rows_of_a_block(found.itemsize)
        blocks = iter(lambda: file.read(rows * found.itemsize), b"")
        digests = np.fromiter(map(xxhash.xxh3_64_intdigest, blocks), DIGEST, -(-count // rows))
    np.save(_beside(path), digests)


@contextmanager
def _opened(path: Path, dtype: np.dtype[Any]) -> "Iterator[tuple[BinaryIO, int, np.dtype[Any]]]":
    """At its first row, with their number and type. No digest has the header, so that its type is
    the one that is asked for, or rows would be taken for others.
    """
    with path.open("rb") as file:
        if numpy_format.read_magic(file) != (1, 0):
            raise ValueError(f"{path}: not as this avdata writes it")
        try:
            (count,), _, found = numpy_format.read_array_header_1_0(file)
        except (SyntaxError, tokenize.TokenError) as error:  # Which numpy lets through.
            raise ValueError(f"{path}: {error}") from error
        if found != dtype and not (dtype.itemsize == 0 and found.kind == dtype.kind):
            raise ValueError(f"{path}: of type {found}, not {dtype}")
        yield file, count, found


def _rows_of_a_block(size: int) -> int:
    """A power of two, so that a block ends where `MOST_ROWS` end."""
    rows: int = 1 << max(0, (BLOCK_BYTES // size).bit_length() - 1)
    return min(rows, MOST_ROWS)


def _beside(path: Path) -> Path:
    return path.with_suffix(".digests.npy")
