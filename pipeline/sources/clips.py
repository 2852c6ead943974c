"""A clip's pixels and samples from whichever of its sources is there, as it was when measured."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from avdata import storage
from avdata.encoders.spec import ClipShape
from avdata.errors import MediaError, RunError
from avdata.pipeline.media.clip import ClipMedia, read_clip
from avdata.pipeline.media.geometry import CENTER_CROP, Fit
from avdata.pipeline.record import Clip
from avdata.pipeline.sources.copies import AFTERWARDS, LocalCopies
from avdata.pipeline.sources.files import exists, is_remote

FETCHING = threading.Lock()
"""Held while a source is fetched, and so while copies of others are removed to make room."""


def _read(path: Path, start_s: float, shape: ClipShape, fit: Fit) -> ClipMedia:
    return read_clip(path, start_s, shape, fit=fit)


Read = Callable[[Path, float, ClipShape, Fit], ClipMedia]
"""`Decoders.read`, or its like in this process."""


def clip_media(
    clip: Clip, shape: ClipShape, copies: LocalCopies, fit: Fit = CENTER_CROP, read: Read = _read
) -> ClipMedia:
    """Read from the first of the clip's sources that is there.

    RunError when none is, or when it is not what was measured; MediaError when it is and cannot
    be decoded.
    """
    uri = next(filter(exists, clip.source.uris), None)
    if uri is None:
        raise RunError(f"{clip.source.uri}: gone since ingest; run `avdata ingest` again")
    try:
        with held(uri, clip.source.digest, copies) as path:
            size = path.stat().st_size
            if size != clip.source.size_bytes:
                had = clip.source.size_bytes
                raise MediaError("read", "changed", f"{size} bytes, at ingest {had}")
            return _read_unchanged(clip, path, shape, fit, read)
    except MediaError as error:
        if error.stage != "read":
            raise
        what = "changed since ingest" if error.reason == "changed" else "cannot be read"
        raise RunError(f"{uri}: {what} ({error}); {_way(error.reason)}") from error


def _way(reason: str) -> str:
    """Out of what stops the job at one source."""
    if reason == "too_large_to_fetch":
        return f"raise {AFTERWARDS}"
    if reason in {"changed", "missing"}:
        return "run `avdata ingest` again"
    return "run this again to go on"


def _read_unchanged(clip: Clip, path: Path, shape: ClipShape, fit: Fit, read: Read) -> ClipMedia:
    try:
        return read(path, clip.in_file_s, shape, fit)
    except MediaError as error:
        if storage.digest_file(path) != clip.source.digest:
            raise MediaError("read", "changed", str(error)) from error
        raise


@contextmanager
def held(uri: str, digest: str, copies: LocalCopies) -> Iterator[Path]:
    """A file that stays while it is read, whatever other threads fetch meanwhile."""
    if not is_remote(uri):
        yield copies.path(uri, digest)
        return
    with FETCHING:
        path = copies.path(uri, digest)
        own = path.with_name(f"{threading.get_ident()}-{path.name}")
        os.link(path, own)
    try:
        yield own
    finally:
        own.unlink()
