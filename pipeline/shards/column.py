"""A column of a table on disk: rows of a `.npy` file, read when they are asked for.

Not mapped: pages that were looked at count as memory of the process until it ends, so that it would
grow to the size of the table, and a file that is cut meanwhile would kill the process.
"""

import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy import ndarray
from numpy.lib import format as numpy_format
from numpy.typing import DTypeLike, NDArray

from avdata.errors import UsageError

BLOCK = 1 << 16
"""Rows that are read at once where neighbours are asked for."""


class Column:
    """One-dimensional, of any type; any number of threads may ask."""

    def __init__(self, path: Path) -> None:
        """OSError or ValueError where it is no such file, or not a whole one."""
        self._path = path
        with path.open("rb") as file:
            if numpy_format.read_magic(file) != (1, 0):
                raise ValueError(f"{path}: not as this avdata writes it")
            (self._count,), _, self._dtype = numpy_format.read_array_header_1_0(file)
            self._start = file.tell()
            self._size = self._dtype.itemsize
            if os.fstat(file.fileno()).st_size != self._start + self._count * self._size:
                raise ValueError(f"{path}: not whole")
            self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return int(self._count)

    def __getitem__(self, rows: "slice | Int64[ndarray, ' some']") -> NDArray[Any]:
        """A copy of some rows, each at least 0; UsageError where the file was cut meanwhile."""
        if isinstance(rows, slice):
            first, last, _ = rows.indices(len(self))
            reads = [(at, min(BLOCK, last - at)) for at in range(first, last, BLOCK)]
        else:
            # Neighbours, blocks of them, are one read.
            begins = np.flatnonzero((np.diff(rows, prepend=-1) != 1) | (rows % BLOCK == 0))
            counts = np.diff(begins, append=len(rows))
            reads = list(zip(rows[begins].tolist(), counts.tolist(), strict=True))
        return np.frombuffer(b"".join([self._read(*one) for one in reads]), self._dtype)

    def _read(self, first: int, count: int) -> bytes:
        wanted = count * self._size
        data = os.pread(self._file, wanted, self._start + first * self._size)
        if len(data) != wanted:
            raise UsageError(
                f"{self._path}: was cut while it was used; delete {self._path.parent}, which is "
                "made again, and start again"
            )
        return data


def write_column(path: Path, dtype: DTypeLike, count: int) -> "np.memmap[Any, Any]":
    """A new column to fill in."""
    return numpy_format.open_memmap(path, "w+", np.dtype(dtype), (count,), version=(1, 0))
