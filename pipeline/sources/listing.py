"""Which sources are meant: files, folders, patterns and lists, local or on S3.

Rows are gathered into Arrow columns as they come, so a corpus of millions of names costs some
hundred bytes each.
"""

import itertools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
from fsspec import AbstractFileSystem
from fsspec.core import has_magic

from avdata.errors import MediaError, UsageError
from avdata.pipeline.arrow import to_table
from avdata.pipeline.sources.files import (
    file_system,
    is_remote,
    listing,
    plain_name,
    reading,
    version_of,
)
from avdata.pipeline.sources.lists import Entry, is_list, read_list
from avdata.pipeline.sources.outage import InARow
from avdata.pipeline.sources.table import SourceRow, once
from avdata.pipeline.sources.walk import BROKEN, Found, inside, matching
from avdata.storage import printable

KINDS = "3gp asf avi flv m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv ts vob webm wmv"
SUFFIXES = frozenset("." + kind for kind in KINDS.split())
ROWS_AT_ONCE = 10_000
THREADS = 32
"""Requests at once for the entries of a list."""


def find_sources(raw: Sequence[str | Path], max_failures_in_a_row: int | None = None) -> pa.Table:
    """`SourceRow`s in order of uri, each once: media by suffix in folders and patterns, and every
    file named itself or in a list.

    UsageError for a name that leads nowhere, or when nothing at all is found; RunError when so many
    entries of a list, one after another, cannot be looked at.
    """
    meant = (row for one in raw for row in _meant(plain_name(str(one))))
    rows = _lasting(meant, max_failures_in_a_row)
    tables = []
    while some := list(itertools.islice(rows, ROWS_AT_ONCE)):
        tables.append(to_table(SourceRow, some))
    if not tables:
        raise UsageError(
            f"{', '.join(map(str, raw))}: no media files there; looked for "
            f"{' '.join(sorted(SUFFIXES))} (a file named itself is taken whatever its suffix)"
        )
    return once(pa.concat_tables(tables))


def _lasting(rows: Iterable[SourceRow], most: int | None) -> Iterator[SourceRow]:
    in_a_row = InARow(most or sys.maxsize)
    for row in rows:
        in_a_row.tell(row.uri, row.outage())
        yield row


def _meant(name: str) -> Iterator[SourceRow]:
    if not name.strip():
        raise UsageError("an empty name among the sources; is a variable of the shell unset?")
    files = file_system(name)
    with listing(name):
        if has_magic(name) and not files.exists(name):
            yield from _matching(files, name)
            return
        info = files.info(name if is_remote(name) else os.path.realpath(name))
        if info["type"] == "directory":
            yield from _media(files, inside(files, info["name"]))
        elif is_list(name):
            yield from _listed(name)
        elif info["type"] == "file":
            yield _row(name, info)
        else:
            raise UsageError(f"{name}: neither a file nor a folder")


def _matching(files: AbstractFileSystem, pattern: str) -> Iterator[SourceRow]:
    found = matching(files, pattern)
    first = next(found, None)
    if first is None:
        raise UsageError(f"{pattern}: nothing has such a name")
    yield from _media(files, itertools.chain([first], found))


def _media(files: AbstractFileSystem, found: Iterable[Found]) -> Iterator[SourceRow]:
    """By suffix; what a link led to under its own name, so that it is found once. Of broken links
    those that may have led to a folder, too.
    """
    for name, info in found:
        suffix = Path(name).suffix.lower()
        if suffix in SUFFIXES and info["type"] == "file":
            yield _row(files.unstrip_protocol(info["name"]), info)
        elif suffix in {"", *SUFFIXES} and info["type"] == BROKEN:
            why = f"a link to {printable(info['destination'])}, which leads to no file"
            yield SourceRow(printable(info["name"])).failed(MediaError("list", "missing", why))


def _listed(name: str) -> Iterator[SourceRow]:
    entries, empty = read_list(name), True
    with ThreadPoolExecutor(THREADS) as pool:
        while some := list(itertools.islice(entries, ROWS_AT_ONCE)):
            yield from pool.map(_of_entry, some)
            empty = False
    if empty:
        raise UsageError(f"{name}: a list that names nothing")


def _of_entry(entry: Entry) -> SourceRow:
    uri, extra = plain_name(entry[0]), entry[1]
    files = file_system(uri)
    try:
        with reading("list"):
            if "\0" in uri:
                raise MediaError("list", "file_name", "no file's name has a zero byte in it")
            uri = uri if is_remote(uri) else os.path.realpath(uri)
            info = files.info(uri)
            if info["type"] != "file":
                raise MediaError("list", "not_a_file", f"a {info['type']}; a list names files")
    except MediaError as error:
        return SourceRow(uri, extra=extra).failed(error)
    return _row(uri, info, extra)


def _row(name: str, info: dict[str, Any], extra: str | None = None) -> SourceRow:
    if is_remote(name):
        return SourceRow(name, info["size"], version_of(info), extra)
    uri = printable(info["name"])
    row = SourceRow(uri, info["size"], version_of(info), extra)
    if uri == info["name"]:
        return row
    return row.failed(MediaError("list", "file_name", "no UTF-8: rename the file"))
