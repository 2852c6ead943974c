"""A clip's pixels and samples from whichever of its sources is there, as it was when measured."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from avdata import storage
from avdata.encoders.spec import ClipShape
from avdata.errors import MediaError, SourceLost
from avdata.pipeline.media.clip import ClipMedia, read_clip
from avdata.pipeline.media.geometry import CENTER_CROP, Fit
from avdata.pipeline.record import Clip
from avdata.pipeline.sources.copies import AFTERWARDS, LocalCopies
from avdata.pipeline.sources.files import exists, is_remote

FETCHING = threading.Lock()
"""Held while a source is fetched, and so while copies of others are removed to make room."""


def _read(path: Path, start_s: float, shape: ClipShape, fit: Fit) -> ClipMedia:
    return read_clip(path, start_s, shape, fit=fit)


GONE = "gone"
"""Reason of a name that is no file any more."""
Read = Callable[[Path, float, ClipShape, Fit], ClipMedia]
"""`Decoders.read`, or its like in this process."""


def clip_media(
    clip: Clip, shape: ClipShape, copies: LocalCopies, fit: Fit = CENTER_CROP, read: Read = _read
) -> ClipMedia:
    """Read from the first of the source's names that is there as it was measured.

    SourceLost when none is; MediaError when one is and cannot be decoded.
    """
    failed: dict[str, MediaError] = {}
    for uri in clip.source.uris:
        try:
            return _read_named(uri, clip, shape, copies, fit, read)
        except MediaError as error:
            if error.stage != "read":
                raise
            failed[uri] = error
    raise _lost(failed)


def _read_named(
    uri: str, clip: Clip, shape: ClipShape, copies: LocalCopies, fit: Fit, read: Read
) -> ClipMedia:
    if not exists(uri):
        raise MediaError("read", GONE)
    with held(uri, clip.source.digest, copies) as path:
        if (size := path.stat().st_size) != (had := clip.source.size_bytes):
            raise MediaError("read", "changed", f"{size} bytes, at ingest {had}")
        return _read_unchanged(clip, path, shape, fit, read)


def _lost(failed: dict[str, MediaError]) -> SourceLost:
    """Told of the first name that is there at all."""
    uri = next((uri for uri, error in failed.items() if error.reason != GONE), next(iter(failed)))
    others = f" (and none of {len(failed) - 1} other names helps)" if len(failed) > 1 else ""
    error = failed[uri]
    if error.reason == GONE:
        what = "gone since ingest"
    elif error.reason == "changed":
        what = f"changed since ingest ({error})"
    else:
        what = f"cannot be read ({error})"
    return SourceLost(f"{uri}: {what}{others}; {_way(error.reason)}")


def _way(reason: str) -> str:
    """Out of what stops the job at one source."""
    if reason == "too_large_to_fetch":
        return f"raise {AFTERWARDS}"
    if reason in {"changed", "missing", GONE}:
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
