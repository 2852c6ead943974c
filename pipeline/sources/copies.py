"""Local copies of remote sources: FFmpeg is confined to files, so they are fetched first.

Copies lie in the machine's temporary folder, in folders named after the process that made them; a
process that was killed leaves its folder to the next one that starts there. Machines and containers
may share that folder: a process is known by its number where it runs and nowhere else.
"""

import os
import re
import shutil
import socket
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from avdata import storage
from avdata.errors import MediaError, RunError
from avdata.pipeline.sources.files import blocks, is_remote, reading

PREFIX = "avdata-copies-"
AT_INGEST, AFTERWARDS = "limits.max_fetch_gib", "max_copies_gib"
"""Settings: how large a source may be to be fetched."""


@contextmanager
def local_copy(uri: str, max_gib: float) -> Iterator[Path]:
    """A path that FFmpeg may open; of a remote source a copy, gone afterwards.

    MediaError when it cannot be fetched or is larger than `max_gib`.
    """
    if not is_remote(uri):
        yield Path(uri)
        return
    with tempfile.TemporaryDirectory(prefix=f"{_here()}{os.getpid()}-") as folder:
        path = Path(folder) / _name(uri)
        fetch(uri, path, max_gib, AT_INGEST)
        yield path


def fetch(uri: str, path: Path, max_gib: float, key: str) -> str:
    """Copies a source; answers the digest of the bytes it got. `key` is the setting `max_gib`."""
    with _own(path), path.open("wb") as file, reading("read"):
        return storage.digest_blocks(_written(blocks(uri), file, max_gib, key))


def too_large(max_gib: float, key: str = AT_INGEST) -> MediaError:
    """Of a remote source that is not fetched."""
    return MediaError("read", "too_large_to_fetch", f"over {key} = {max_gib:g}")


def remove_copies_of_the_dead() -> None:
    """Folders of copies whose process ran where this one does and is gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        owner = re.match(rf"{re.escape(_here())}(\d+)-", folder.name)
        if owner and not Path("/proc", owner[1]).exists():
            shutil.rmtree(folder, ignore_errors=True)


class LocalCopies:
    """The copies used last, up to a size in all; for clips that come in any order.

    Where several processes of a machine keep copies, each has its share of that size; one copy
    may have all of it.
    """

    def __init__(self, max_gib: float, sharing: int = 1) -> None:
        self._max_gib, self._sharing = max_gib, sharing
        self._kept: OrderedDict[str, tuple[Path, str]] = OrderedDict()
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_here()}{os.getpid()}-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def path(self, uri: str, digest: str) -> Path:
        """A local file with these bytes; MediaError when the source has others by now."""
        if not is_remote(uri):
            return Path(uri)
        if uri not in self._kept:
            path = self._folder / storage.digest_json(uri) / _name(uri)
            path.parent.mkdir(exist_ok=True)
            self._kept[uri] = (path, fetch(uri, path, self._max_gib, AFTERWARDS))
            self._shrink()
        self._kept.move_to_end(uri)
        path, found = self._kept[uri]
        if found != digest:
            raise MediaError("read", "changed", f"its digest is {found}, at ingest {digest}")
        return path

    def _shrink(self) -> None:
        sizes = [path.stat().st_size for path, _ in self._kept.values()]
        while len(sizes) > 1 and sum(sizes) * self._sharing > self._max_gib * 2**30:
            sizes.pop(0)
            _, (path, _) = self._kept.popitem(last=False)
            path.unlink()


def _here() -> str:
    """What the names of all folders begin with whose processes are numbered as this one is."""
    namespace = Path("/proc/self/ns/pid")
    return f"{PREFIX}{socket.gethostname()}-{namespace.stat().st_ino if namespace.exists() else 0}-"


@contextmanager
def _own(path: Path) -> Iterator[None]:
    """What is wrong with this machine's temporary folder is no fault of a source."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path}: no copy can be written there ({error.strerror}); make room, or let TMPDIR "
            f"name another folder, or lower {AT_INGEST} or {AFTERWARDS}"
        ) from error


def _name(uri: str) -> str:
    """Of a copy. The suffix is a hint to FFmpeg; the rest of a key may be too long for a file."""
    return f"source{Path(uri).suffix[:16]}"


def _written(pieces: Iterator[bytes], file: BinaryIO, max_gib: float, key: str) -> Iterator[bytes]:
    for piece in pieces:
        if file.tell() + len(piece) > max_gib * 2**30:
            raise too_large(max_gib, key)
        with _own(Path(file.name)):
            file.write(piece)
        yield piece
