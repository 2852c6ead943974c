"""The parts of a manifest folder: what measuring has committed, one file a content.

    DIR/parts/KEY.parquet         its clips                } one of the two
    DIR/quarantine/KEY.parquet    why it gave none         }

KEY is the digest of a source's bytes and the fingerprint of the settings: results of different
settings, code or bytes never meet.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from avdata import storage
from avdata.errors import RunError
from avdata.pipeline.arrow import arrow_schema, from_table, to_table
from avdata.pipeline.record import Clip, Quarantined

TRANSIENT_STAGES = ("deadline", "memory", "read")
"""Stages whose failures may pass: the machine was busy, the network away."""
STARVED = ("decoder_crashed", "no_frame_decoded")
"""Reasons that may be want of memory: tried again once more of it is allowed."""
FILES_AT_ONCE = 512
MAKE_AGAIN = "delete it and run the command that made it again"
MAGIC = b"PAR1"
"""First and last bytes of a Parquet file."""
ROWS_TOGETHER = 65_536
"""A row group: what is in memory at once where a table is read piece by piece."""
CLIPS = arrow_schema(Clip)
FAILED = arrow_schema(Quarantined).append(pa.field("digest", pa.string()))


@dataclass(frozen=True, slots=True)
class Parts:
    """Those of one fingerprint."""

    root: Path
    fingerprint: str

    def write_clips(self, digest: str, clips: list[Clip]) -> None:
        """Commits the clips of one content."""
        write_table(to_table(Clip, clips), self._file("parts", digest))
        self._file("quarantine", digest).unlink(missing_ok=True)

    def write_failure(self, digest: str, failed: Quarantined) -> None:
        """Commits that one content gave no clips; counts the attempts."""
        file, before = self._file("quarantine", digest), 0
        if file.exists() and _is_whole(file):
            before = from_table(Quarantined, _read(file, arrow_schema(Quarantined)))[0].attempts
        write_table(to_table(Quarantined, [replace(failed, attempts=before + 1)]), file)

    def measured(self) -> pa.Array:
        """Digests that have clips."""
        return self._digests("parts")

    def missing(self, memory_gib: float) -> pa.Array:
        """Digests that failed for a reason which may pass, now that so much memory is allowed."""
        failed = self.failures(self._digests("quarantine"))
        passing = pc.is_in(failed["stage"], value_set=pa.array(TRANSIENT_STAGES))
        starved = pc.is_in(failed["reason"], value_set=pa.array(STARVED))
        grown = pc.fill_null(pc.less(failed["memory_gib"], memory_gib), False)
        again = pc.or_(passing, pc.and_(starved, grown))
        return failed["digest"].filter(again).combine_chunks()

    def accounted(self) -> pa.Array:
        """Digests that have clips or any reason for none."""
        return pa.concat_arrays([self.measured(), self._digests("quarantine")])

    def clips(self, digests: pa.Array) -> pa.Table:
        """Of these contents, which are measured."""
        files = [self._file("parts", one.as_py()) for one in digests]
        return read_tables(files, CLIPS)

    def failures(self, digests: pa.Array) -> pa.Table:
        """Of these contents, as far as they failed; with a column `digest`."""
        failed = digests.filter(pc.is_in(digests, value_set=self._digests("quarantine")))
        files = [self._file("quarantine", one.as_py()) for one in failed]
        table = read_tables(files, arrow_schema(Quarantined))
        return table.append_column(FAILED.field("digest"), failed)

    def _digests(self, folder: str) -> pa.Array:
        end = f"-{self.fingerprint}.parquet"
        names = (path.name for path in (self.root / folder).glob(f"*{end}"))
        return pa.array((name.removesuffix(end) for name in names), pa.string())

    def _file(self, folder: str, digest: str) -> Path:
        return self.root / folder / f"{digest}-{self.fingerprint}.parquet"


def read_tables(files: list[Path], schema: pa.Schema) -> pa.Table:
    """Many small files as one table in few chunks, in the order given."""
    tables = [schema.empty_table()]
    for first in range(0, len(files), FILES_AT_ONCE):
        some = [_read(file, schema) for file in files[first : first + FILES_AT_ONCE]]
        tables.append(pa.concat_tables(some).combine_chunks())
    return pa.concat_tables(tables)


@contextmanager
def undamaged(file: Path, way_out: str = MAKE_AGAIN) -> Iterator[None]:
    """Inside the block the file is read; RunError names it when it is damaged."""
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # Of the disk, not of what is in the file.
        said = " ".join(str(error).split())
        raise RunError(f"{file}: damaged ({said}); {way_out}") from error


def remove_damaged(folder: Path) -> None:
    """Files of a folder that an ingest makes again where they are not there. Only the ends are
    looked at: what a full disk or a power cut leaves is short, or has zeros there.
    """
    for file in sorted(folder.glob("*.parquet")):
        if not _is_whole(file):
            sys.stderr.write(f"avdata: {file}: damaged; what was in it is made again\n")
            file.unlink()


def _is_whole(file: Path) -> bool:
    with file.open("rb") as opened:
        begin = opened.read(len(MAGIC))
        opened.seek(-min(len(MAGIC), file.stat().st_size), os.SEEK_END)
        return begin == opened.read() == MAGIC


def _read(file: Path, schema: pa.Schema) -> pa.Table:
    with undamaged(file):
        table = pq.ParquetFile(file).read()
    return as_now(table, schema, file)


def as_now(table: pa.Table, schema: pa.Schema, file: Path) -> pa.Table:
    """What an older version wrote: columns that were added since are null. RunError where they may
    not be, or where a newer version wrote it.
    """
    if table.schema.equals(schema):
        return table
    for field in schema:
        if field.name not in table.column_names and field.nullable:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    apart = set(table.column_names) ^ set(schema.names)
    try:
        if not apart:
            return table.select(schema.names).cast(schema)
        said = f"columns {', '.join(sorted(apart))}"
    except pa.ArrowException as error:
        said = str(error)
    raise RunError(
        f"{file}: written by another version of avdata, which differs ({said}); {MAKE_AGAIN}"
    )


def write_table(table: pa.Table, file: Path) -> None:
    """Commits a table."""
    write_batches(iter([table]), table.schema, file)


def write_batches(tables: Iterator[pa.Table], schema: pa.Schema, file: Path) -> None:
    """Commits a table that comes in pieces of any size and need not be in memory."""
    with storage.committed(file) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for table in _regrouped(tables, ROWS_TOGETHER):
            writer.write_table(table, row_group_size=ROWS_TOGETHER)


def _regrouped(tables: Iterator[pa.Table], size: int) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        while sum(map(len, held)) >= size:
            whole = pa.concat_tables(held)
            yield whole.slice(0, size).combine_chunks()
            held = [whole.slice(size)]
    if any(map(len, held)):
        yield pa.concat_tables(held).combine_chunks()
