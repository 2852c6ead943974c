"""Samples whose bytes are not those that were written: left out, listed, and never too many."""

import contextlib
import json
import os
import threading
from pathlib import Path

from avdata import storage
from avdata.errors import CorruptShard


class Quarantine:
    """A list in memory and, where a file is given, one JSON line a sample in it."""

    def __init__(self, most: int, file: Path | None = None) -> None:
        self._most, self._file = most, file
        self._lock = threading.Lock()
        self._listed: set[str] = set()
        self.keys: set[str] = set()
        """Of training samples found damaged since it was opened."""

    def add(self, key: str, tar: str, error: CorruptShard) -> None:
        """Notes a damaged training sample; raises the error when there are more than may be."""
        with self._lock:
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
        """Once, also over restarts and processes."""
        if key in self._listed:
            return
        self._listed.add(key)
        if self._file is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with storage.locked(self._file) as descriptor:
            listed = self._file.read_text(errors="replace")
            if key not in _keys(listed):
                line = json.dumps({"key": key, "tar": tar, "reason": str(error)})
                cut = listed and not listed.endswith("\n")  # By the end of its process.
                os.write(descriptor, (("\n" if cut else "") + line + "\n").encode())


def _keys(listed: str) -> set[str]:
    """A line that was cut off has none."""
    found = set()
    for line in listed.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            found.add(json.loads(line)["key"])
    return found
