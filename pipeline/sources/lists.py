"""Lists of sources: `.txt` with a name a line, `.csv` and `.parquet` with a column of names.

The names are in column `uri`, `path` or `url`; the other columns travel with each source, as one
JSON object. Relative names count from the folder of the list.
"""

import csv
import json
import math
from collections.abc import Iterator
from typing import Any, BinaryIO, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from avdata.errors import UsageError
from avdata.pipeline.sources.files import file_system

NAME_COLUMNS = ("uri", "path", "url")
Entry = tuple[str, str | None]
"""A name, and what else the list says of it."""


def is_list(uri: str) -> bool:
    """By suffix."""
    return uri.lower().endswith((".txt", ".csv", ".parquet"))


def read_list(uri: str) -> Iterator[Entry]:
    """Its entries in order; UsageError names the list and what is wrong with it."""
    folder = uri.rpartition("/")[0] + "/" if "/" in uri else ""
    kind = uri.lower().rpartition(".")[2]
    try:
        if kind == "parquet":
            with file_system(uri).open(uri, "rb") as file:
                entries = _parquet(uri, file)
                yield from ((_from(folder, name), extra) for name, extra in entries)
        else:
            with file_system(uri).open(uri, "r", encoding="utf-8-sig", newline="") as file:
                entries = _csv(uri, file) if kind == "csv" else _lines(file)
                yield from ((_from(folder, name), extra) for name, extra in entries)
    except UnicodeDecodeError as error:
        raise UsageError(f"{uri}: not UTF-8 ({error})") from error
    except pa.ArrowInvalid as error:
        raise UsageError(f"{uri}: not Parquet ({error})") from error
    except csv.Error as error:
        raise UsageError(f"{uri}: not CSV ({error})") from error


def _lines(file: TextIO) -> Iterator[Entry]:
    return ((line.strip(), None) for line in file if line.strip())


def _csv(uri: str, file: TextIO) -> Iterator[Entry]:
    rows = csv.DictReader(file)
    column = _name_column(uri, list(rows.fieldnames or []))
    for row in rows:
        if None in row:
            raise UsageError(f"{uri}: line {rows.line_num} has more cells than the header")
        yield _entry(f"{uri}: line {rows.line_num}", column, row)


def _parquet(uri: str, file: BinaryIO) -> Iterator[Entry]:
    table = pq.ParquetFile(file)
    column = _name_column(uri, table.schema_arrow.names)
    count = 0
    for batch in table.iter_batches(batch_size=10_000):
        for row in batch.to_pylist():
            count += 1
            yield _entry(f"{uri}: row {count}", column, row)


def _name_column(uri: str, columns: list[str]) -> str:
    for at, name in enumerate(columns):
        if name and name in columns[:at]:  # Spreadsheets write many without a name.
            raise UsageError(f"{uri}: column {name!r} is there twice; give each a name of its own")
    for name in NAME_COLUMNS:
        if name in columns:
            return name
    found = ", ".join(columns) or "nothing"
    raise UsageError(f"{uri}: has no column {', '.join(NAME_COLUMNS)}; it has {found}")


def _entry(where: str, column: str, row: dict[str, Any]) -> Entry:
    name = row[column]
    if not isinstance(name, str) or not name.strip():
        raise UsageError(f"{where}: {column} is {name!r}, not a name")
    plain = {k: _finite(v) for k, v in row.items() if k != column}
    # What is absent (an empty cell, a null, not-a-number) is left out.
    rest = {k: v for k, v in plain.items() if v not in (None, "")}
    extra = json.dumps(rest, sort_keys=True, ensure_ascii=False, default=str, allow_nan=False)
    return name.strip(), extra if rest else None


def _finite(value: object) -> object:
    """Null for numbers that JSON has not."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _from(folder: str, name: str) -> str:
    return name if "://" in name or name.startswith("/") else folder + name
