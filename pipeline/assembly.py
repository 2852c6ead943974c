"""Joins of the assembled tables, on Arrow columns: names, captions and failures by digest or id."""

import pyarrow as pa
import pyarrow.compute as pc

from avdata.pipeline.arrow import arrow_schema
from avdata.pipeline.record import Quarantined


def named(clips: pa.Table, contents: pa.Table) -> pa.Table:
    """The clips under the names that their bytes have now (`by_digest`), by name and start."""
    at = clips.schema.get_field_index("source")
    field, source = clips.schema.field(at), clips["source"].combine_chunks()
    digest = pc.struct_field(source, "digest")
    contents = contents.combine_chunks()
    of = contents.take(pc.index_in(digest, value_set=contents["digest"].combine_chunks()))
    taken = {name: of[name].combine_chunks() for name in ("uri", "uris", "extra")}
    parts = [taken.get(part.name, pc.struct_field(source, part.name)) for part in field.type]
    clips = clips.set_column(at, field, pa.StructArray.from_arrays(parts, fields=list(field.type)))
    clips = clips.append_column("_uri", taken["uri"])
    return clips.sort_by([("_uri", "ascending"), ("start_s", "ascending")]).drop_columns("_uri")


def captioned(clips: pa.Table, captions: pa.Table) -> pa.Table:
    """The clips with their captions, or why a captioner gave none; null where none was asked."""
    return joined(clips, captions, ("captions", "caption_failure"))


def joined(clips: pa.Table, rows: pa.Table, names: tuple[str, ...]) -> pa.Table:
    """The clips with these columns of rows that have a `clip_id`; null where there is no row."""
    found = pc.index_in(clips["clip_id"], value_set=rows["clip_id"].combine_chunks())
    for name in names:
        column = rows[name].combine_chunks().take(found.combine_chunks())
        at = clips.schema.get_field_index(name)
        clips = clips.set_column(at, clips.schema.field(at), column)
    return clips


def failures_by_name(failed: pa.Table, sources: pa.Table) -> pa.Table:
    """A row of `Quarantined` for every name that gave no clips, in order of name."""
    schema = arrow_schema(Quarantined)
    unread = sources.filter(pc.is_null(sources["digest"]))
    unread = unread.append_column(
        schema.field("memory_gib"), pa.nulls(len(unread), pa.float64())
    ).select(schema.names)
    at = pc.index_in(sources["digest"], value_set=failed["digest"].combine_chunks())
    mine = sources.filter(pc.is_valid(at))
    rows = failed.combine_chunks().take(pc.drop_null(at)).select(schema.names)
    rows = rows.set_column(0, schema.field("uri"), mine["uri"])
    return pa.concat_tables([unread.cast(schema), rows.cast(schema)]).sort_by("uri")
