"""One file by its name, a local path or an `s3://` URI, reached through fsspec.

S3 takes endpoint, region and credentials from the usual variables (AWS_ENDPOINT_URL, AWS_PROFILE,
AWS_ACCESS_KEY_ID, ...) or from the machine's role.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import aiohttp
import fsspec
from botocore.exceptions import BotoCoreError

from avdata.errors import MediaError, UsageError
from avdata.storage import S3, S3_SETTINGS

UNREACHABLE = (BotoCoreError, aiohttp.ClientError)
"""What s3fs raises where no S3 answers; all else that it raises is an OSError."""
BLOCK = 8 << 20
FILE = "file://"


def is_remote(uri: str) -> bool:
    """Whether the bytes must be fetched before FFmpeg may see them."""
    return uri.startswith(S3)


def file_system(uri: str) -> fsspec.AbstractFileSystem:
    """The file system that a name belongs to; UsageError for one that is not read."""
    if is_remote(uri):
        return fsspec.filesystem("s3", use_listings_cache=False)
    if "://" in uri:
        raise UsageError(f"{uri}: only local paths and s3:// URIs are read")
    return fsspec.filesystem("file")


def exists(uri: str) -> bool:
    """Whether there is a file of this name; UsageError when that cannot be said."""
    with listing(uri):
        return bool(file_system(uri).exists(uri))


def version_of(info: dict[str, Any]) -> str:
    """What changes when a file's bytes do: its ETag, or its time of change."""
    return str(info.get("ETag") or info["mtime"]).strip('"')


def plain_name(uri: str) -> str:
    """A path for a `file://` URI; any other name as it is."""
    return unquote(uri.removeprefix(FILE)) if uri.startswith(FILE) else uri


@contextmanager
def listing(uri: str) -> Iterator[None]:
    """What a file system raises while sources are looked for, as one line for the user."""
    hint = f"; check {S3_SETTINGS}" if is_remote(uri) else ""
    try:
        yield
    except FileNotFoundError:
        raise UsageError(f"{uri}: no such file or folder") from None
    except PermissionError as error:
        raise UsageError(f"{uri}: refused ({_line(error)}){hint}") from error
    except (OSError, *UNREACHABLE) as error:
        raise UsageError(f"{uri}: cannot be listed ({_line(error)}){hint}") from error


@contextmanager
def reading(stage: str) -> Iterator[None]:
    """What a file system raises about one source, as an error that costs this source alone."""
    try:
        yield
    except FileNotFoundError as error:
        raise MediaError(stage, "missing", _line(error)) from error
    except PermissionError as error:
        raise MediaError(stage, "refused", _line(error)) from error
    except (OSError, *UNREACHABLE) as error:
        raise MediaError(stage, "unreadable", _line(error)) from error


def blocks(uri: str) -> Iterator[bytes]:
    """A file's bytes in order."""
    options = {"cache_type": "none", "block_size": BLOCK} if is_remote(uri) else {}
    with file_system(uri).open(uri, "rb", **options) as file:
        while block := file.read(BLOCK):
            yield block


def base_name(uri: str) -> str:
    """The last part of a name."""
    return Path(uri).name


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
