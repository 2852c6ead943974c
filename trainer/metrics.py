"""The metrics file: one JSON object a line, one line a step, each step once over all resumes."""

import contextlib
import json
from pathlib import Path
from types import TracebackType
from typing import Any

from avdata import storage
from avdata.errors import RunError


class MetricsFile:
    """Appends lines; `with` closes it. What lies beyond the resumed step is cut off first."""

    def __init__(self, path: Path, resume_step: int) -> None:
        kept = [line for line in read_metrics(path) if line["step"] <= resume_step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        with storage.committed(path) as temporary:
            temporary.write_text(text)
        self._file = path.open("a")

    def __enter__(self) -> "MetricsFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):  # What could not be written has been told.
            self._file.close()

    def add(self, line: dict[str, Any]) -> None:
        """One step; reaches the disk's cache at once, so that it can be watched.

        RunError where it cannot be written, as on a full disk.
        """
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as error:
            raise RunError(
                f"{self._file.name}: cannot be written ({error.strerror}); make room and give the "
                "same command, which goes on from the newest checkpoint"
            ) from error


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Every whole line; a last line cut short by a kill is left out."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
