"""The table of sources: which bytes, by digest, are known by which names.

A row is one name of one ingest. Its digest is recalled from what earlier runs found under the same
name, size and version, so that bytes are read once; the rest of the manifest knows digests alone.
"""

from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from avdata.errors import MediaError
from avdata.pipeline.arrow import arrow_schema
from avdata.pipeline.sources.outage import outage

SAME = ["uri", "size_bytes", "version"]
"""Columns that say that a file has not changed."""


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One name: the digest of its bytes, or why they could not be had."""

    uri: str
    size_bytes: int | None = None
    version: str | None = None
    """ETag, or time of change."""
    extra: str | None = None
    """What the list that named it says besides, a JSON object."""
    digest: str | None = None
    stage: str | None = None
    reason: str | None = None
    detail: str | None = None
    attempts: int = 0

    def failed(self, error: MediaError) -> "SourceRow":
        """This row with the reason why there is no digest, one more attempt counted."""
        return replace(
            self,
            digest=None,
            stage=error.stage,
            reason=error.reason,
            detail=error.detail,
            attempts=self.attempts + 1,
        )

    def outage(self) -> str | None:
        """See `outage.outage`."""
        if self.stage is None or self.reason is None:
            return None
        return outage(MediaError(self.stage, self.reason, self.detail or ""))


SCHEMA = arrow_schema(SourceRow)


def once(rows: pa.Table) -> pa.Table:
    """One row a uri, in order of uri; of what several rows say, the first that says something. Rows
    of failures say nothing beside others: two names may be one as text.
    """
    failed = pc.is_valid(rows["stage"])
    good, bad = rows.filter(pc.invert(failed)), rows.filter(failed)
    both = good["uri"].filter(pc.is_in(good["uri"], value_set=bad["uri"].combine_chunks()))
    bad = bad.filter(pc.invert(pc.is_in(bad["uri"], value_set=both.combine_chunks())))
    return _grouped(pa.concat_tables([good, bad]), ["uri"]).sort_by("uri")


def recall(found: pa.Table, known: pa.Table) -> pa.Table:
    """`found` with the digests that `known` has of the same unchanged files, or the reason for
    which these could not be read, in order of uri.
    """
    # The latest failure first; a digest once found outweighs them.
    known = _grouped(known.sort_by([("attempts", "descending")]), SAME)
    listed = found.filter(pc.is_valid(found["stage"]))
    rest = found.filter(pc.is_null(found["stage"])).select([*SAME, "extra"])
    rest = rest.join(known.drop_columns("extra"), keys=SAME, join_type="left outer")
    has = pc.is_valid(rest["digest"])
    for name in ("stage", "reason", "detail"):
        rest = _with(rest, name, pc.if_else(has, None, rest[name]))
    rest = _with(rest, "attempts", pc.if_else(has, 0, pc.fill_null(rest["attempts"], 0)))
    return pa.concat_tables([_shaped(rest), listed]).sort_by("uri")


def unread(sources: pa.Table) -> pa.Table:
    """Rows whose bytes are still to be read: new, changed, or refused before."""
    at_listing = pc.fill_null(pc.equal(sources["stage"], "list"), False)
    return sources.filter(pc.and_(pc.is_null(sources["digest"]), pc.invert(at_listing)))


def by_digest(sources: pa.Table) -> pa.Table:
    """One row a content, in order of its first name: digest, uri, uris, size_bytes, extra."""
    read = sources.filter(pc.is_valid(sources["digest"])).sort_by("uri")
    found = read.group_by("digest", use_threads=False).aggregate(
        [("uri", "list"), ("uri", "first"), ("size_bytes", "first"), ("extra", "first")]
    )
    names = {"uri_list": "uris", "uri_first": "uri"}
    columns = [names.get(name, name.removesuffix("_first")) for name in found.column_names]
    return found.rename_columns(columns).sort_by("uri")


def _grouped(rows: pa.Table, keys: list[str]) -> pa.Table:
    rest = [name for name in SCHEMA.names if name not in keys]
    grouped = rows.group_by(keys, use_threads=False).aggregate([(name, "first") for name in rest])
    return _shaped(grouped.rename_columns([n.removesuffix("_first") for n in grouped.column_names]))


def _shaped(rows: pa.Table) -> pa.Table:
    return rows.select(SCHEMA.names).cast(SCHEMA)


def _with(rows: pa.Table, name: str, values: pa.ChunkedArray) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(name), name, values)
