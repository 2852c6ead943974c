"""Which sources are meant: files, folders, patterns and lists, local or on S3.

Rows are gathered into Arrow columns as they come, so a corpus of millions of names costs some
hundred bytes each.
"""

import itertools
from collections.abc import Iterator, Sequence
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
    printable,
    reading,
    version_of,
)
from avdata.pipeline.sources.lists import Entry, is_list, read_list
from avdata.pipeline.sources.table import SourceRow, once

KINDS = "3gp asf avi flv m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv ts vob webm wmv"
SUFFIXES = frozenset("." + kind for kind in KINDS.split())
ROWS_AT_ONCE = 10_000
THREADS = 32
"""Requests at once for the entries of a list."""


def find_sources(raw: Sequence[str | Path]) -> pa.Table:
    """`SourceRow`s in order of uri, each once: media by suffix in folders and patterns, and every
    file named itself or in a list.

    UsageError for a name that leads nowhere, or when nothing at all is found.
    """
    rows = (row for one in raw for row in _meant(str(one).removeprefix("file://")))
    tables = []
    while some := list(itertools.islice(rows, ROWS_AT_ONCE)):
        tables.append(to_table(SourceRow, some))
    if not tables:
        raise UsageError(
            f"{', '.join(map(str, raw))}: no media files there; looked for "
            f"{' '.join(sorted(SUFFIXES))} (a file named itself is taken whatever its suffix)"
        )
    return once(pa.concat_tables(tables))


def _meant(name: str) -> Iterator[SourceRow]:
    files = file_system(name)
    with listing(name):
        if has_magic(name) and not files.exists(name):
            yield from _matching(files, name)
            return
        info = files.info(name if is_remote(name) else str(Path(name).resolve()))
        if info["type"] == "directory":
            yield from _inside(files, info["name"])
        elif is_list(name):
            yield from _listed(name)
        elif info["type"] == "file":
            yield _row(name, info)
        else:
            raise UsageError(f"{name}: neither a file nor a folder")


def _matching(files: AbstractFileSystem, pattern: str) -> Iterator[SourceRow]:
    found = files.glob(pattern, detail=True)
    if not found:
        raise UsageError(f"{pattern}: nothing has such a name")
    for path, info in found.items():
        if info["type"] != "directory":
            yield from _media(files, path, info)
        elif "**" not in pattern:  # It matches what is inside by itself.
            yield from _inside(files, path)


def _inside(files: AbstractFileSystem, folder: str) -> Iterator[SourceRow]:
    for _, _, found in files.walk(folder, detail=True, on_error="raise"):
        for info in found.values():
            yield from _media(files, info["name"], info)


def _media(files: AbstractFileSystem, path: str, info: dict[str, Any]) -> Iterator[SourceRow]:
    if Path(path).suffix.lower() not in SUFFIXES:
        return
    if info.get("islink"):  # Under the name of what it leads to, so that this is found once.
        target = str(Path(path).resolve())
        if not Path(target).is_file():
            return
        info = files.info(target)
    if info["type"] == "file":
        yield _row(files.unstrip_protocol(info["name"]), info)


def _listed(name: str) -> Iterator[SourceRow]:
    entries = read_list(name)
    with ThreadPoolExecutor(THREADS) as pool:
        while some := list(itertools.islice(entries, ROWS_AT_ONCE)):
            yield from pool.map(_of_entry, some)


def _of_entry(entry: Entry) -> SourceRow:
    uri, extra = entry[0].removeprefix("file://"), entry[1]
    files = file_system(uri)
    if not is_remote(uri):
        uri = str(Path(uri).resolve())
    try:
        with reading("list"):
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
