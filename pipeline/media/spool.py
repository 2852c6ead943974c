"""Rows of one kind, appended while a source is read and wanted again when its end is known.

The sound of a film, and the motion of all its frames, are gigabytes. Every core of a machine may be
at a film of its own, so what is more than some megabytes lies in a temporary file without a name.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from avdata.errors import RunError

IN_MEMORY_BYTES = 32 << 20
"""A minute and a half of sound, eleven of motion: of most sources nothing is ever written."""


class Spool:
    """Append rows, then read any span of them: `spool[a:b]` is a new array (b - a, *row).

    RunError where the temporary folder has no room.
    """

    def __init__(
        self, kind: DTypeLike, row: tuple[int, ...] = (), in_memory: int | None = None
    ) -> None:
        self.kind, self._row = np.dtype(kind), row
        in_memory = IN_MEMORY_BYTES if in_memory is None else in_memory
        self._row_bytes = self.kind.itemsize * int(np.prod(row))
        with contextlib.ExitStack() as held:
            self._file = held.enter_context(tempfile.SpooledTemporaryFile(in_memory))
            self._held = held.pop_all()
        self._count = 0

    def append(self, rows: NDArray[Any]) -> None:
        """(n, *row) more."""
        with _own():
            self._file.seek(self._count * self._row_bytes)
            self._file.write(np.ascontiguousarray(rows, self.kind).tobytes())
        self._count += len(rows)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, span: slice) -> NDArray[Any]:
        low, high, _ = span.indices(self._count)
        with _own():  # What was appended may only now be written.
            self._file.seek(low * self._row_bytes)
            data = self._file.read(max(high - low, 0) * self._row_bytes)
        return np.frombuffer(data, self.kind).reshape(-1, *self._row)

    def __del__(self) -> None:
        with contextlib.suppress(OSError):  # What no room was found for goes now.
            self._held.close()


@contextlib.contextmanager
def _own() -> Iterator[None]:
    """What is wrong with this machine's temporary folder is no fault of a source."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{tempfile.tempdir or 'no temporary folder'}: what memory is not to hold cannot be "
            f"kept there ({error.strerror}); make room, or let TMPDIR name another folder"
        ) from error
