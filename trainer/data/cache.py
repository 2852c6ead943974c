"""Copies of ranges on a local disk, up to a size; any number of processes share the folder.

A copy is written under a temporary name of its full length and renamed; reading one marks it as
used. How many bytes lie there is kept in one file, and whoever would add to it locks that file: it
counts its own bytes before they are there, and removes what has not been used for longest where
they would be too many. That sum may be too high, never too low, until someone looks again. The
reader checks the bytes; a copy that does not hold them is fetched again and written anew, and a
copy that cannot be read or written is none.
"""

import os
import re
import stat
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import xxhash

from avdata import storage
from avdata.errors import UsageError

SHARE = 32
"""One part in so many of the size is made free when it is full."""
STALE_SECONDS = 3600.0
OURS = "ranges-v1"
"""The folder of the copies in the one that was named: what else lies there is not ours."""
_COPY = re.compile(r"[0-9a-f]{2}/[0-9a-f]{32}(\.tmp-[0-9a-f]{12})?")
_LONGEST_SUM = 32


class RangeCache:
    """Copies of the ranges of one dataset."""

    def __init__(self, folder: Path, most_bytes: int, dataset: str) -> None:
        self._folder, self._most, self._dataset = folder / OURS, most_bytes, dataset
        self._sum = self._folder / "bytes"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"data.read.cache = {folder}: {error}") from error

    def read_into(self, name: str, offset: int, pieces: Sequence[memoryview]) -> bool:
        """Fills the pieces; False where there is no such copy."""
        path, length = self._path(name, offset, pieces)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            return False
        try:
            whole = os.preadv(descriptor, pieces, 0) == length
            with suppress(OSError):  # Another user's.
                os.utime(descriptor)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return whole

    def put(self, name: str, offset: int, pieces: Sequence[memoryview]) -> None:
        """Keeps a copy; where the disk or the size has no room, there is none."""
        path, length = self._path(name, offset, pieces)
        temporary = path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex[:12]}")
        with suppress(OSError):
            try:
                if self._begun(temporary, length):
                    with temporary.open("r+b") as file:
                        file.writelines(pieces)
                    with storage.locked(self._sum):  # Or a look would miss it under both names.
                        temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)

    def _begun(self, temporary: Path, length: int) -> bool:
        """An empty file of that length, counted; False where there is no room for it."""
        if length > self._most:  # Though all others went.
            return False
        with storage.locked(self._sum) as file:
            said = os.pread(file, _LONGEST_SUM, 0)
            total = int(said) if said.isdigit() else self._most
            if total + length > self._most:
                total = self._trimmed(self._most * (1 - 1 / SHARE) - length)
            fits = total + length <= self._most
            total += length * fits
            os.ftruncate(file, 0)
            os.write(file, str(total).encode())
            if fits:
                temporary.parent.mkdir(exist_ok=True)
                with temporary.open("xb") as empty:
                    empty.truncate(length)
        return fits

    def _trimmed(self, most: float) -> int:
        """Removes what was used longest ago; the bytes that are left, those under way too."""
        found, total = [], 0
        for path in self._folder.glob("*/*"):
            if not _COPY.fullmatch(str(path.relative_to(self._folder))):
                continue
            with suppress(OSError):
                facts = path.lstat()
                if not stat.S_ISREG(facts.st_mode):
                    continue
                if ".tmp-" not in path.name:
                    found.append((facts.st_mtime_ns, facts.st_size, path))
                elif time.time() - facts.st_mtime > STALE_SECONDS:  # Of a killed process.
                    path.unlink()
                    continue
                total += facts.st_size
        for _, size, path in sorted(found):
            if total <= most:
                break
            with suppress(OSError):
                path.unlink(missing_ok=True)
                total -= size
        return total

    def _path(self, name: str, offset: int, pieces: Sequence[memoryview]) -> tuple[Path, int]:
        length = sum(map(len, pieces))
        digest = xxhash.xxh3_128_hexdigest(f"{self._dataset} {name} {offset} {length}".encode())
        return self._folder / digest[:2] / digest, length
