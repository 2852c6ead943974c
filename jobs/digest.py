"""The first stage of ingest: which bytes the names hold, so that each content is measured once."""

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from avdata import storage
from avdata.errors import MediaError
from avdata.jobs.engine import Engine, stream
from avdata.pipeline.sources.copies import too_large
from avdata.pipeline.sources.digests import known_sources, require_none_lost, write_digests
from avdata.pipeline.sources.files import base_name, blocks, is_remote, reading
from avdata.pipeline.sources.outage import InARow
from avdata.pipeline.sources.table import SourceRow, recall, unread
from avdata.progress import progress

BATCH_SOURCES, BATCH_BYTES = 64, 1 << 30
"""Names that are committed together; what a kill costs."""
INLINE_BYTES = 1 << 28
"""So little is read in the time that Ray takes to start."""


@dataclass
class DigestSources:
    """A batch of names: each read through once."""

    root: Path
    max_gib: float

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        rows = [SourceRow(**row) for row in item["sources"]]
        rows = [self._digested(row) for row in rows]
        write_digests(self.root, rows)
        return {"uris": [row.uri for row in rows], "why": [row.outage() for row in rows]}

    def _digested(self, row: SourceRow) -> SourceRow:
        try:
            if is_remote(row.uri) and (row.size_bytes or 0) > self.max_gib * 2**30:
                raise too_large(self.max_gib)
            with reading("read"):
                digest = storage.digest_blocks(blocks(row.uri))
        except MediaError as error:
            return row.failed(error)
        return SourceRow(row.uri, row.size_bytes, row.version, row.extra, digest)


def digest_sources(
    root: Path, found: pa.Table, max_gib: float, engine: Engine, max_failures_in_a_row: int
) -> pa.Table:
    """`found` with a digest or a reason in every row; unchanged files are not read again.

    RunError when so many, one after another, cannot be read.
    """
    todo = unread(recall(found, known_sources(root)))
    if len(todo) == 0:
        return recall(found, known_sources(root))
    if (pc.sum(todo["size_bytes"]).as_py() or 0) < INLINE_BYTES:
        engine = Engine(inline=True)
    answers = stream(engine, lambda: DigestSources(root, max_gib), _batches(todo, engine))
    in_a_row = InARow(max_failures_in_a_row)
    with progress("digest", len(found), len(found) - len(todo)) as advance, closing(answers):
        for answer in answers:
            advance(base_name(answer["uris"][-1]), len(answer["uris"]))
            for uri, why in zip(answer["uris"], answer["why"], strict=True):
                in_a_row.tell(uri, why)
    sources = recall(found, known_sources(root))
    unknown = unread(sources)
    lost = unknown.filter(pc.is_null(unknown["stage"]))["uri"].to_pylist()
    require_none_lost(root, lost, "a digest")
    return sources


def _batches(todo: pa.Table, engine: Engine) -> Iterator[dict[str, Any]]:
    most = min(BATCH_SOURCES, math.ceil(len(todo) / (4 * engine.num_workers())))
    some: list[dict[str, Any]] = []
    size = 0
    for batch in todo.to_batches(max_chunksize=BATCH_SOURCES):
        for row in batch.to_pylist():
            some.append(row)
            size += row["size_bytes"]
            if len(some) >= most or size >= BATCH_BYTES:
                yield {"sources": some}
                some, size = [], 0
    if some:
        yield {"sources": some}
