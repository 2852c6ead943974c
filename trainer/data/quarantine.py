"""Samples whose bytes are not those that were written: left out, listed, and never too many."""

import contextlib
import json
import os
import threading
from pathlib import Path

from avdata.errors import CorruptShard


class Quarantine:
    """A list in memory and, where a file is given, one JSON line a sample in it."""

    def __init__(self, most: int, file: Path | None = None) -> None:
        self._most, self._file = most, file
        self._lock = threading.Lock()
        self._listed = set() if file is None else _keys(file)
        self.keys: set[str] = set()
        """Of training samples found damaged since it was opened."""

    def add(self, key: str, tar: str, error: CorruptShard) -> None:
        """Notes a damaged training sample; raises the error when there are more than may be."""
        with self._lock:
            if key in self.keys:
                return
            self.keys.add(key)
            self._list(key, tar, error)
            if len(self.keys) > self._most:
                raise CorruptShard(
                    f"{error}; {len(self.keys)} damaged samples, data.read.max_bad_samples and "
                    f"max_bad_share allow {self._most}"
                ) from error

    def add_held_out(self, key: str, tar: str, error: CorruptShard) -> None:
        """Lists a sample that is not trained on; any number of them may be damaged."""
        with self._lock:
            self._list(key, tar, error)

    def _list(self, key: str, tar: str, error: CorruptShard) -> None:
        """Once, also over restarts."""
        if key in self._listed:
            return
        self._listed.add(key)
        if self._file is not None:
            _append(self._file, {"key": key, "tar": tar, "reason": str(error)})


def _keys(file: Path) -> set[str]:
    """Of a list; a line that was cut off has none."""
    found = set()
    with contextlib.suppress(FileNotFoundError):
        for line in file.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                found.add(json.loads(line)["key"])
    return found


def _append(file: Path, line: dict[str, str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        # One write: lines of several processes do not mix.
        os.write(descriptor, (json.dumps(line) + "\n").encode())
    finally:
        os.close(descriptor)
