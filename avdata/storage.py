"""Files that are either whole or absent, and digests of bytes.

Every output of avdata is written under a temporary name beside its final one and renamed, so a
file under its final name is complete and a killed run leaves only `*.tmp-*` behind.
"""

import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import xxhash

from avdata.errors import RunError, UsageError

STALE_SECONDS = 86_400.0
"""Runs on other machines may write into the same folder, so age decides, not a process id."""


@contextmanager
def committed(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` when the block ends well, and goes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex[:12]}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Indented JSON, keys as given, committed; equal values give equal bytes."""
    with committed(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote; RunError when it is damaged."""
    try:
        plain = json.loads(path.read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: damaged, it is no JSON ({error})") from error
    if not isinstance(plain, dict):
        raise RunError(f"{path}: damaged, it holds no object but a {type(plain).__name__}")
    return plain


def require_ours(folder: Path, markers: Sequence[str], what: str) -> None:
    """UsageError when `folder` is a file, or holds things but none of the `markers`."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: a file; give a folder to write")
    ours = any((folder / marker).exists() for marker in markers)
    if not ours and folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder}: holds other files and no {what}; give a new folder")


def digest_bytes(data: bytes) -> str:
    """xxh3-128 in hex."""
    return xxhash.xxh3_128_hexdigest(data)


def digest_json(value: object) -> str:
    """Digest of a JSON value, whatever the order of its keys."""
    return digest_bytes(json.dumps(value, sort_keys=True, ensure_ascii=False).encode())


def digest_file(path: Path) -> str:
    """xxh3-128 of a file's bytes in hex, read in blocks."""
    with path.open("rb") as file:
        return digest_blocks(iter(lambda: file.read(1 << 20), b""))


def digest_blocks(blocks: Iterable[bytes]) -> str:
    """xxh3-128 in hex of bytes that come in pieces."""
    state = xxhash.xxh3_128()
    for block in blocks:
        state.update(block)
    return state.hexdigest()


def remove_stale(folder: Path) -> None:
    """Temporary files directly in `folder` that no live run can be writing any more."""
    for path in folder.glob("*.tmp-*"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()
