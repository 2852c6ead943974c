"""Copies of ranges on a local disk, up to a size; any number of processes share the folder.

There are no locks: a copy is written under a temporary name and renamed, reading one marks it as
used, and whoever has written a share of the size removes what has not been used for longest. The
reader checks the bytes; a copy that does not hold them is dropped and fetched again.
"""

import os
import re
import stat
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import xxhash

from avdata.errors import UsageError

SHARE = 32
"""One part in so many of the size is written between two looks at the folder."""
STALE_SECONDS = 3600.0
OURS = "ranges-v1"
"""The folder of the copies in the one that was named: what else lies there is not ours."""
_COPY = re.compile(r"[0-9a-f]{2}/[0-9a-f]{32}(\.tmp-[0-9a-f]{12})?")


class RangeCache:
    """Copies of the ranges of one dataset."""

    def __init__(self, folder: Path, most_bytes: int, dataset: str) -> None:
        self._folder, self._most, self._dataset = folder / OURS, most_bytes, dataset
        self._lock = threading.Lock()
        self._written = most_bytes  # What is there already is looked at first.
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"data.read.cache = {folder}: {error}") from error

    def read_into(self, name: str, offset: int, pieces: Sequence[memoryview]) -> bool:
        """Fills the pieces; False where there is no such copy."""
        path, length = self._path(name, offset, pieces)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            whole = os.preadv(descriptor, pieces, 0) == length
            os.utime(descriptor)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return whole

    def put(self, name: str, offset: int, pieces: Sequence[memoryview]) -> None:
        """Keeps a copy; where the disk has no room, there is none."""
        path, length = self._path(name, offset, pieces)
        temporary = path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex[:12]}")
        with suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            try:
                with temporary.open("wb") as file:
                    file.writelines(pieces)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        with self._lock:
            self._written += length
            due = self._written > self._most // SHARE
            if due:
                self._written = 0
        if due:
            self._trim()

    def drop(self, name: str, offset: int, pieces: Sequence[memoryview]) -> None:
        """Removes a copy."""
        self._path(name, offset, pieces)[0].unlink(missing_ok=True)

    def _trim(self) -> None:
        """Leaves room for what all processes may write until the next look."""
        found = []
        for path in self._folder.glob("*/*"):
            if not _COPY.fullmatch(str(path.relative_to(self._folder))):
                continue
            with suppress(FileNotFoundError):
                facts = path.lstat()
                if not stat.S_ISREG(facts.st_mode):
                    continue
                if ".tmp-" in path.name:
                    if time.time() - facts.st_mtime > STALE_SECONDS:  # Of a killed process.
                        path.unlink()
                    continue
                found.append((facts.st_mtime_ns, facts.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._most * (1 - 2 / SHARE):
                return
            path.unlink(missing_ok=True)
            total -= size

    def _path(self, name: str, offset: int, pieces: Sequence[memoryview]) -> tuple[Path, int]:
        length = sum(map(len, pieces))
        digest = xxhash.xxh3_128_hexdigest(f"{self._dataset} {name} {offset} {length}".encode())
        return self._folder / digest[:2] / digest, length
