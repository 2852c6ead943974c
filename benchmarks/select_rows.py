"""How long `avdata select` takes on many rows, and how much memory.

    python benchmarks/select_rows.py MANIFEST [--rows 1000000]

The clips of a manifest are repeated, each under an id of its own, until there are so many. Peak
memory is that of this process beyond what it had before.
"""

import argparse
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from avdata.jobs.select import select
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.parts import ROWS_TOGETHER, write_batches


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        large = Manifest(Path(folder) / "m")
        shutil.copytree(given.manifest, large.root)
        some = large.table()
        write_batches(_repeated(some, given.rows), some.schema, large.clips_file)
        before = _peak_mib()
        for run in range(3):
            began = time.monotonic()
            counts = select(large.root, None)
            sys.stdout.write(
                f"run {run}: {counts['clips']} rows, {counts['keep']} kept, "
                f"{time.monotonic() - began:.1f} s, peak memory +{_peak_mib() - before:.0f} MiB\n"
            )


def _repeated(table: pa.Table, rows: int) -> Iterator[pa.Table]:
    group = pa.concat_tables([table] * (-(-ROWS_TOGETHER // len(table))))[:ROWS_TOGETHER]
    group = group.combine_chunks()
    at = group.schema.get_field_index("clip_id")
    for begin in range(0, rows, ROWS_TOGETHER):
        ids = pa.array([f"{begin + k:032x}" for k in range(ROWS_TOGETHER)])
        piece = group.set_column(at, group.schema.field(at), ids)
        yield piece[: min(ROWS_TOGETHER, rows - begin)]


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
