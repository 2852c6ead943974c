"""How the assembled tables come together, on Arrow columns and a row group at a time: names,
copies, captions and failures by digest or id.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from avdata.pipeline.arrow import arrow_schema, narrowed
from avdata.pipeline.decide import decided
from avdata.pipeline.dedup import READ, with_duplicates
from avdata.pipeline.parts import CLIPS, write_batches
from avdata.pipeline.policy import Policy
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


def write_assembled(
    clips: Iterator[pa.Table],
    rows: Sequence[tuple[pa.Table, tuple[str, ...]]],
    policy: Policy,
    about: Mapping[str, str],
    file: Path,
) -> None:
    """Commits clips that come in order, some at a time, with what is known of them by `clip_id`
    (tables and their columns), their copies and what the policy says. `about` goes to the metadata.

    They lie in a temporary file beside it meanwhile: of all clips at once only prints are held.
    """
    seen = [narrowed(CLIPS.empty_table(), READ)]
    with NamedTemporaryFile(dir=file.parent, prefix=f"{file.name}.tmp-") as measured:
        write_batches(_noted(clips, seen), CLIPS, Path(measured.name))
        known = pa.concat_tables(seen).combine_chunks()
        seen.clear()
        copies = with_duplicates(known).select(["clip_id", "duplicates"])
        del known
        tables = [
            (one.combine_chunks(), names) for one, names in [(copies, ("duplicates",)), *rows]
        ]
        joins = [
            (pc.index_in(copies["clip_id"], value_set=one["clip_id"].combine_chunks()), one, names)
            for one, names in tables
        ]

        def groups(columns: list[str] | None) -> Iterator[pa.Table]:
            for first, some in row_groups(Path(measured.name)):
                whole = some
                for at, one, names in joins:
                    whole = joined(whole, one, names, at.slice(first, len(some)))
                yield whole if columns is None else narrowed(whole, columns)

        schema = CLIPS.with_metadata({**(CLIPS.metadata or {}), **about})
        write_batches((after for _, after in decided(groups, policy)), schema, file)


def row_groups(file: Path, columns: list[str] | None = None) -> Iterator[tuple[int, pa.Table]]:
    """The clips of a file, a row group at a time, each with the number of its first row."""
    with pq.ParquetFile(file) as opened:
        if not opened.num_row_groups:
            yield 0, CLIPS.empty_table()
        first = 0
        for number in range(opened.num_row_groups):
            some = opened.read_row_group(number, columns)
            # Parquet gives the items of lists another name.
            yield first, some if columns else some.cast(CLIPS)
            first += len(some)


def joined(
    clips: pa.Table, rows: pa.Table, names: tuple[str, ...], at: pa.ChunkedArray
) -> pa.Table:
    """The clips with these columns of the rows that are theirs; null where there is none."""
    for name in names:
        column = rows[name].combine_chunks().take(at.combine_chunks())
        place = clips.schema.get_field_index(name)
        clips = clips.set_column(place, clips.schema.field(place), column)
    return clips


def _noted(clips: Iterator[pa.Table], seen: list[pa.Table]) -> Iterator[pa.Table]:
    for one in clips:
        seen.append(narrowed(one, READ))
        yield one


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
