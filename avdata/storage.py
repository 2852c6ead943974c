"""Files that are either whole or absent, on this machine or on S3, and digests of bytes.

Every output of avdata is written under a temporary name beside its final one and renamed, so a
file under its final name is complete and a killed run leaves only `*.tmp-*` behind. S3 cannot
rename and need not: an object is there once all of it has been uploaded.

What lies on S3 is a `UPath`, which has the methods of pathlib; it is typed as a `Path`, so that
code need not care (but for `os`, `shutil` and `open`). S3 takes endpoint, region and credentials
from the usual variables (AWS_ENDPOINT_URL, AWS_PROFILE, ...) or from the machine's role. It needs
`avdata[s3]`.
"""

import fcntl
import fnmatch
import importlib.util
import json
import os
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeGuard, cast

import xxhash
from upath import UPath

from avdata.errors import AvdataError, RunError, UsageError
from avdata.lock import NAME as LOCK
from avdata.lock import NO_LOCKS, alone

S3 = "s3://"
S3_SETTINGS = "AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
S3_OPTIONS: dict[str, Any] = {
    # Other processes write there, too.
    "use_listings_cache": False,
    # Some half a minute in all, as long as a storage node needs to come back.
    "config_kwargs": {"retries": {"mode": "standard", "max_attempts": 8}, "connect_timeout": 10},
}
_HINT = f"check {S3_SETTINGS}, then run it again to go on from here"
TEMPORARY = "*.tmp-*"
WRITER_SECONDS = 10.0
"""For a command that was told to end a moment ago."""
STALE_SECONDS = 86_400.0
"""Runs on other machines may write into the same folder, so age decides, not a process id."""


def place(name: str | Path) -> Path:
    """From its name: `s3://BUCKET/KEY` or a local path; UsageError for anything else."""
    text = str(name)
    if text.startswith(S3):
        if importlib.util.find_spec("s3fs") is None:
            raise UsageError(f"{text}: S3 needs s3fs; pip install 'avdata[s3]'")
        return cast(Path, UPath(text, protocol=None, **S3_OPTIONS))
    if "://" in text:
        raise UsageError(f"{text}: only local paths and s3:// are known")
    return Path(text)


def is_remote(where: Path | UPath) -> TypeGuard[UPath]:
    """Whether its bytes come over the network."""
    return isinstance(cast(object, where), UPath)


def printable(path: str) -> str:
    """A local path as text; bytes that are not UTF-8 are written out."""
    return os.fsencode(path).decode(errors="backslashreplace")


def below(where: Path, root: Path) -> str:
    """The name of a file relative to a folder that it lies in."""
    return str(where).removeprefix(str(root)).lstrip("/")


@contextmanager
def reaching(where: Path | UPath) -> Iterator[None]:
    """Turns what S3 and its clients raise into a RunError of one line; local errors pass."""
    try:
        yield
    except (AvdataError, FileNotFoundError):
        raise
    except Exception as error:
        # The clients' errors have no common root, and there are none to name without avdata[s3].
        if not is_remote(where) or not _of_s3(error):
            raise
        said = " ".join(str(error).split())[:300]
        raise RunError(f"{where}: S3 refuses or does not answer ({said}); {_HINT}") from error


def _of_s3(error: Exception) -> bool:
    """Of its clients, what is no OSError is one of theirs."""
    module = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError) or module in ("aiohttp", "aiobotocore", "botocore", "s3fs")


@contextmanager
def committed(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` when the block ends well, and goes when it does not.

    That of a file on S3 lies in this machine's temporary folder.
    """
    if is_remote(path):
        with tempfile.TemporaryDirectory(prefix="avdata-upload-") as folder:
            temporary = Path(folder) / path.name
            yield temporary
            with reaching(path):
                path.fs.put_file(str(temporary), path.path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex[:12]}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # Which, nobody said.
    finally:
        temporary.unlink(missing_ok=True)


def read_range(path: Path, offset: int, length: int) -> bytes:
    """So many bytes from there on, fewer where the file ends; FileNotFoundError without one.

    One request on S3, retried as S3_OPTIONS say. Any number of threads may read at once.
    """
    if is_remote(path):
        with reaching(path):
            try:
                data: bytes = path.fs.cat_file(path.path, start=offset, end=offset + length)
            except OSError as error:
                if past_the_end(error):
                    return b""
                raise
            return data
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)


def past_the_end(error: Exception) -> bool:
    """Whether S3 says that an object ends before the range that was asked for.

    By what botocore read of its answer: s3fs keeps the words of that alone, which differ from
    server to server, and leaves the whole behind the error as its cause.
    """
    answer: dict[str, Any] = getattr(error.__cause__, "response", None) or {}
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return bool(status == 416 or answer.get("Error", {}).get("Code") == "InvalidRange")


@contextmanager
def local_copy(path: Path) -> Iterator[Path]:
    """The file itself where it is local, else a copy that goes with the block."""
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="avdata-download-") as folder:
        copy = Path(folder) / path.name
        with reaching(path):
            path.fs.get_file(path.path, str(copy))
        yield copy


def write_json(path: Path, value: object) -> None:
    """Indented JSON, keys as given, committed; equal values give equal bytes."""
    with committed(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote; RunError when it is damaged."""
    try:
        with reaching(path):
            plain = json.loads(path.read_bytes())
    except (ValueError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: damaged, it is no JSON ({error})") from error
    if not isinstance(plain, dict):
        raise RunError(f"{path}: damaged, it holds no object but a {type(plain).__name__}")
    return plain


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """A descriptor of a local file that no other process or thread has inside this block.

    The kernel frees it when the process is killed. Where the file system knows no locks, nobody
    waits for anybody.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def written(folder: Path) -> Iterator[None]:
    """Inside the block no other command writes the folder, which is made where there is none;
    UsageError where one does. On S3, which has no locks, nothing is locked: what lies there is
    whole, whoever wrote it.
    """
    if is_remote(folder):
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder, "writes", "run this again when that has ended", WRITER_SECONDS):
        yield


def require_ours(folder: Path, markers: Sequence[str], what: str) -> None:
    """UsageError when `folder` is a file, or holds things but none of the `markers`. What a run
    leaves that is killed before its first commit does not count.
    """
    with reaching(folder):
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder}: a file; give a folder to write")
        ours = any((folder / marker).exists() for marker in markers)
        if not ours and folder.is_dir() and any(not _is_passing(one) for one in folder.iterdir()):
            raise UsageError(f"{folder}: holds other files and no {what}; give a new folder")


def _is_passing(path: Path) -> bool:
    return path.name == LOCK or fnmatch.fnmatchcase(path.name, TEMPORARY)


def digest_bytes(data: bytes) -> str:
    """xxh3-128 in hex."""
    return xxhash.xxh3_128_hexdigest(data)


def digest_json(value: object) -> str:
    """Digest of a JSON value, whatever the order of its keys."""
    return digest_bytes(json.dumps(value, sort_keys=True, ensure_ascii=False).encode())


def digest_file(path: Path) -> str:
    """xxh3-128 of a file's bytes in hex, read in blocks."""
    with reaching(path), path.open("rb") as file:
        return digest_blocks(iter(lambda: file.read(1 << 20), b""))


def digest_blocks(blocks: Iterable[bytes]) -> str:
    """xxh3-128 in hex of bytes that come in pieces."""
    state = xxhash.xxh3_128()
    for block in blocks:
        state.update(block)
    return state.hexdigest()


def remove_stale(folder: Path) -> None:
    """Temporary files directly in `folder` that no live run can be writing any more."""
    for path in folder.glob(TEMPORARY):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()
