"""Where shards lie, a folder or an `s3://` prefix: ranges of their files into given memory.

A local range is one `preadv` into its places; a remote one is one ranged GET through s3fs, which
`avdata[s3]` brings.
"""

import errno
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import fsspec
from fsspec.asyn import sync

from avdata import storage
from avdata.errors import CorruptShard, UsageError

MOST_OPEN = 256
"""Files at once; a process may often have no more than 1024."""
MAX_PIECES = 1000
"""Of memory in one `preadv`; Linux takes 1024."""


MAY_PASS = frozenset(
    getattr(errno, name)
    for name in (
        *("EAGAIN", "EBUSY", "EINTR", "EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"),
        # Of network mounts: gone for a while, or another server in the place of the first.
        *("ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN"),
        *("ENETUNREACH", "ENOTCONN", "EPIPE", "EREMOTEIO", "ESHUTDOWN", "ESTALE", "ETIMEDOUT"),
    )
    if hasattr(errno, name)
)
"""Errors of a file that another attempt may not meet."""


class Transient(Exception):
    """A read failed in a way that may not last."""


class Store(Protocol):
    """Files under one root, by names relative to it."""

    @property
    def root(self) -> str:
        """A folder or an s3:// prefix."""
        ...

    def read_into(self, name: str, offset: int, pieces: Sequence[memoryview]) -> None:
        """Fills pieces of memory, one after the other, with the bytes from `offset` on.

        CorruptShard when the file is missing, ends before that or lies on a bad sector; UsageError
        when it cannot be read at all; Transient.
        """
        ...


class LocalStore:
    """A folder; the files read last stay open."""

    def __init__(self, root: str) -> None:
        self.root = root
        # One that was dropped is closed when the last thread that reads from it is done.
        self._opened = lru_cache(MOST_OPEN)(_File)

    def read_into(self, name: str, offset: int, pieces: Sequence[memoryview]) -> None:
        """See `Store`."""
        path, left = f"{self.root}/{name}", pieces
        try:
            file = self._opened(path)
            while left:
                count = os.preadv(file.number, left[:MAX_PIECES], offset)
                if count == 0:
                    raise CorruptShard(f"{path}: has no byte {offset}; run `avdata encode` again")
                offset += count
                left = _after(left, count)
        except FileNotFoundError:
            raise CorruptShard(f"{path}: missing; run `avdata encode` again") from None
        except OSError as error:
            self._opened.cache_clear()
            raise _worded(path, error) from error
        except CorruptShard:
            self._opened.cache_clear()  # The next attempt opens it anew.
            raise


class _File:
    """Open for reading, as long as anyone has it."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.number)


@dataclass(frozen=True, slots=True)
class RemoteStore:
    """A prefix of an S3 bucket."""

    root: str
    files: Any
    timeout_seconds: float

    def read_into(self, name: str, offset: int, pieces: Sequence[memoryview]) -> None:
        """See `Store`."""
        path, length = f"{self.root}/{name}", sum(map(len, pieces))
        try:
            data = memoryview(self._get(path, offset, offset + length))
        except FileNotFoundError:
            raise CorruptShard(f"{path}: missing; run `avdata encode` again") from None
        if len(data) != length:
            raise CorruptShard(f"{path}: {len(data)} bytes at {offset}, {length} were asked for")
        first = 0
        for piece in pieces:
            piece[:] = data[first : first + len(piece)]
            first += len(piece)

    def _get(self, path: str, first: int, last: int) -> bytes:
        from aiohttp import ClientError
        from botocore.exceptions import BotoCoreError

        try:
            got: bytes = sync(
                self.files.loop,
                self.files._cat_file,
                path,
                start=first,
                end=last,
                timeout=self.timeout_seconds,
            )
        except FileNotFoundError:
            raise
        except PermissionError as error:
            raise UsageError(f"{path}: refused ({error}); check {storage.S3_SETTINGS}") from error
        except (OSError, TimeoutError, ClientError, BotoCoreError) as error:
            if storage.past_the_end(error):
                raise CorruptShard(
                    f"{path}: has no byte {first}; run `avdata encode` again"
                ) from error
            said = " ".join(f"{type(error).__name__} {error}".split())[:300]
            raise Transient(f"{path}: {said}") from error
        return got


def open_store(root: str | Path, timeout_seconds: float = 20.0, connections: int = 16) -> Store:
    """UsageError for a scheme that is not read."""
    name = str(root).rstrip("/")
    if not name.startswith(storage.S3):
        if "://" in name:
            raise UsageError(f"{name}: only local paths and s3:// URIs are read")
        return LocalStore(str(Path(name).absolute()))
    config = {
        "connect_timeout": timeout_seconds,
        "read_timeout": timeout_seconds,
        "retries": {"max_attempts": 0},
        "max_pool_connections": connections,
    }
    try:
        files = fsspec.filesystem("s3", use_listings_cache=False, config_kwargs=config)
    except ImportError:
        raise UsageError(f"{name}: S3 needs s3fs; pip install 'avdata[s3]'") from None
    # Attempts are ours to make and to count.
    files.retries = 1
    return RemoteStore(name, files, timeout_seconds)


def _worded(path: str, error: OSError) -> Exception:
    """What an error of a local file means for who wanted its bytes."""
    if error.errno == errno.EIO:
        return CorruptShard(f"{path}: {error.strerror}; run `avdata encode` again on a sound disk")
    if error.errno in MAY_PASS:
        return Transient(f"{path}: {error}")
    return UsageError(f"{path}: cannot be read ({error.strerror}); mend that and start again")


def _after(pieces: Sequence[memoryview], count: int) -> Sequence[memoryview]:
    """What is left of pieces once the first so many bytes are filled."""
    if count == sum(map(len, pieces)):
        return ()
    number = 0
    while count >= len(pieces[number]):
        count -= len(pieces[number])
        number += 1
    return [pieces[number][count:], *pieces[number + 1 :]]
