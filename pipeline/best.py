"""Which clip of those that mean the same is to be kept, by what near-duplicates are ranked by."""

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from avdata.pipeline.dedup import ranks
from avdata.pipeline.manifest import SemanticsRow


def with_best(clips: pa.Table, rows: Sequence[SemanticsRow]) -> list[SemanticsRow]:
    """The rows with the best of each group told, one a group; `clips` are the manifest's."""
    rank = dict(zip(clips["clip_id"].to_pylist(), ranks(clips).tolist(), strict=True))
    ordered = sorted(rows, key=lambda row: rank[row.clip_id], reverse=True)
    # The best comes last and stays.
    pictures = {row.semantics.picture_group: row.clip_id for row in ordered}
    sounds = {row.semantics.sound_group: row.clip_id for row in ordered}
    return [_told(row, pictures, sounds) for row in rows]


def _told(
    row: SemanticsRow, pictures: dict[str | None, str], sounds: dict[str | None, str]
) -> SemanticsRow:
    picture, sound = row.semantics.picture_group, row.semantics.sound_group
    found = replace(
        row.semantics,
        picture_best=None if picture is None else pictures[picture] == row.clip_id,
        sound_best=None if sound is None else sounds[sound] == row.clip_id,
    )
    return SemanticsRow(row.clip_id, found)
