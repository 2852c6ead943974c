"""Digests of a manifest folder: what is known of names from the last ingest and from one that runs.

DIR/digests/*.parquet     a batch of names each, until the ingest has been assembled
DIR/sources.parquet       all names of the last ingest
"""

from pathlib import Path

import pyarrow as pa

from avdata import storage
from avdata.errors import RunError
from avdata.pipeline.arrow import to_table
from avdata.pipeline.parts import read_tables, write_table
from avdata.pipeline.sources.table import SCHEMA, SourceRow


def write_digests(root: Path, rows: list[SourceRow]) -> None:
    """Commits what some names hold, or why they could not be read."""
    name = storage.digest_json([[row.uri, row.version, row.attempts] for row in rows])
    write_table(to_table(SourceRow, rows), root / "digests" / f"{name}.parquet")


def known_sources(root: Path) -> pa.Table:
    """`SourceRow`s of both; a name may be there several times."""
    files = [*sorted((root / "digests").glob("*.parquet")), root / "sources.parquet"]
    return read_tables([file for file in files if file.exists()], SCHEMA)


def require_none_lost(root: Path, lost: list[str], what: str) -> None:
    """RunError unless `lost` is empty: those for which workers have committed neither."""
    if lost:
        raise RunError(
            f"{root}: {len(lost)} have neither {what} nor a reason for none, {lost[0]} among them; "
            "see to it that this folder is the same one on all machines of the cluster, then run "
            "it again"
        )


def forget_digests(root: Path) -> None:
    """Once `sources.parquet` has them."""
    for file in (root / "digests").glob("*.parquet"):
        file.unlink()
