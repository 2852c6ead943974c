"""Which files under the given paths are media sources."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from avdata import storage
from avdata.errors import UsageError

KINDS = "3gp asf avi flv m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv ts vob webm wmv"
SUFFIXES = frozenset("." + kind for kind in KINDS.split())


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One local source before it is opened."""

    path: Path
    size_bytes: int
    changed_ns: int

    @property
    def uri(self) -> str:
        """Its name in the manifest; bytes that are not UTF-8 are written out."""
        return os.fsencode(self.path).decode(errors="backslashreplace")

    @property
    def is_nameable(self) -> bool:
        """Whether the file can be found again by its `uri`."""
        return self.uri == str(self.path)

    def key(self, fingerprint: str) -> str:
        """Names this version of the file under these settings."""
        return storage.digest_json([self.uri, self.size_bytes, self.changed_ns, fingerprint])


def find_sources(paths: Sequence[Path]) -> list[SourceFile]:
    """Media files by suffix in the folders, and every file named itself, in order of name.

    UsageError for a path that does not exist, or when nothing at all is found.
    """
    found: set[Path] = set()
    for path in paths:
        if path.is_dir():
            inside = (file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
            found.update(file.resolve() for file in inside if file.is_file())
        elif path.exists():
            found.add(path.resolve())
        else:
            raise UsageError(f"{path}: no such file or folder")
    if not found:
        names = ", ".join(str(path) for path in paths)
        raise UsageError(
            f"{names}: no media files there; looked for {' '.join(sorted(SUFFIXES))} "
            "(a file named itself is taken whatever its suffix)"
        )
    stats = [(path, path.stat()) for path in sorted(found)]
    return [SourceFile(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]
