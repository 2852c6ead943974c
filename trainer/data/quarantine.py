"""Samples whose bytes are not those that were written: left out, listed, and never too many."""

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
        self.keys: set[str] = set()

    def add(self, key: str, tar: str, error: CorruptShard) -> None:
        """Notes a damaged sample; raises the error when there are more than may be."""
        with self._lock:
            if key in self.keys:
                return
            self.keys.add(key)
            if self._file is not None:
                self._append({"key": key, "tar": tar, "reason": str(error)})
            if len(self.keys) > self._most:
                raise CorruptShard(
                    f"{error}; {len(self.keys)} damaged samples, data.read.max_bad_samples and "
                    f"max_bad_share allow {self._most}"
                ) from error

    def _append(self, line: dict[str, str]) -> None:
        assert self._file is not None
        self._file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            # One write: lines of several processes do not mix.
            os.write(descriptor, (json.dumps(line) + "\n").encode())
        finally:
            os.close(descriptor)
