"""Near-duplicates over the whole manifest, by picture and by sound apart, from stored prints alone.

A video with another sound track shares its picture with the original, a sound used again shares
its sound; only clips that share both are copies, of which one is enough. A source's own clips are
never compared with each other, and files with the same bytes are one source already. A still
picture or silence has no print and so no copies.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int64, UInt64
from numpy import ndarray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from avdata.pipeline.arrow import arrow_schema
from avdata.pipeline.copies import Prints, copies, same_clips
from avdata.pipeline.decide import RANKED_BY, ranks
from avdata.pipeline.measure.looks import first_look
from avdata.pipeline.measure.spectrum import first_window
from avdata.pipeline.media.stream import ANALYSIS_RATE
from avdata.pipeline.record import Clip

MAX_SCENE_BITS = 6.0
"""Mean of the 32 scene bits by which two pictures of one origin may differ."""
MIN_CHANGE_SHARE = 0.45
"""Cells that change in both over cells that change in either."""
MIN_CHANGES = 8
"""Cells that change in either; fewer tell no moment from another."""
MAX_SOUND_ERROR = 0.25
"""Share of bits that differ; unlike sounds differ in a half, Haitsma and Kalker allow 0.35."""
MIN_SOUND_PRINTS = 10
"""0.5 s in which there is something to hear in both."""
READ = (
    *("source.digest", "start_s", "fingerprint.picture", "fingerprint.sound", "duplicates"),
    *RANKED_BY,
)
"""Columns that it needs."""
LOW_HALF = np.uint64((1 << 32) - 1)


def with_duplicates(clips: pa.Table) -> pa.Table:
    """The same rows with the groups of `duplicates` filled in; the answer does not depend on their
    order. Which of a group is best is not told here: it depends on the policy.
    """
    digest = pc.struct_field(clips["source"], "digest")
    keyed = pa.table({"digest": digest, "start": clips["start_s"], "id": clips["clip_id"]})
    order = pc.sort_indices(keyed, [(name, "ascending") for name in keyed.column_names])
    rows = clips.take(order)
    pictures, sounds = _prints(rows, "picture", first_look), _prints(rows, "sound", _first_window)
    seen = _groups(len(rows), copies(pictures, _picture_keys, _same_picture))
    heard = _groups(len(rows), copies(sounds, _sound_keys, _same_sound))

    def same(one: Int64[ndarray, " n"], other: Int64[ndarray, " n"]) -> Bool[ndarray, " n"]:
        found = same_clips(pictures, one, other, _same_picture)
        found[found] = same_clips(sounds, one[found], other[found], _same_sound)
        return found

    both = _gathered(ranks(rows), seen, heard, same)
    back = pc.sort_indices(order)
    found = [_smallest(rows["clip_id"], group).take(back) for group in (seen, heard, both)]
    at = clips.schema.get_field_index("duplicates")
    field = arrow_schema(Clip).field("duplicates")
    column = pa.StructArray.from_arrays(
        [*found, pa.nulls(len(rows), pa.bool_())], fields=list(field.type)
    )
    return clips.set_column(at, field, column)


def _prints(rows: pa.Table, kind: str, first: Callable[[float], int]) -> Prints:
    lists = pc.struct_field(rows["fingerprint"], kind).combine_chunks()
    flat = lists.flatten().to_numpy().view(np.uint64)
    count = pc.list_value_length(lists).to_numpy().astype(np.int64)
    values = np.zeros((len(rows), int(count.max(initial=1))), np.uint64)
    values[np.arange(values.shape[1]) < count[:, None]] = flat
    digest = pc.struct_field(rows["source"], "digest").combine_chunks()
    source = pc.rank(digest, tiebreaker="dense").to_numpy().astype(np.int64) - 1
    starts = rows["start_s"].to_numpy()
    instants = np.array([first(start) for start in starts], np.int64)
    return Prints(source, instants, values, count)


def _first_window(start_s: float) -> int:
    return first_window(start_s, ANALYSIS_RATE)


def _picture_keys(prints: UInt64[ndarray, " n"]) -> Iterator[UInt64[ndarray, " n"]]:
    """Half of the scene with half of what changes: a scene alone is the same in every moment."""
    half = np.uint64(0xFFFF)
    for scene in (32, 48):
        for change in (0, 16):
            moved = prints >> np.uint64(change) & half
            key = (prints >> np.uint64(scene) & half) << np.uint64(16) | moved
            yield np.where(np.bitwise_count(moved) >= 2, key, 0)


def _sound_keys(prints: UInt64[ndarray, " n"]) -> Iterator[UInt64[ndarray, " n"]]:
    """24 neighbouring bits of the 32, four ways around."""
    twice = prints | prints << np.uint64(32)
    for turn in (0, 8, 16, 24):
        yield twice >> np.uint64(turn) & np.uint64(0xFFFFFF)


def _same_picture(
    left: UInt64[ndarray, "n width"],
    right: UInt64[ndarray, "n width"],
    inside: Bool[ndarray, "n width"],
) -> Bool[ndarray, " n"]:
    def bits(values: UInt64[ndarray, "n width"]) -> Int64[ndarray, " n"]:
        return np.asarray(np.where(inside, np.bitwise_count(values), 0).sum(axis=1))

    scene = bits((left ^ right) & ~LOW_HALF) / np.maximum(inside.sum(axis=1), 1)
    either = bits((left | right) & LOW_HALF)
    changes = bits(left & right & LOW_HALF) >= MIN_CHANGE_SHARE * either
    return np.asarray((scene <= MAX_SCENE_BITS) & changes & (either >= MIN_CHANGES))


def _same_sound(
    left: UInt64[ndarray, "n width"],
    right: UInt64[ndarray, "n width"],
    inside: Bool[ndarray, "n width"],
) -> Bool[ndarray, " n"]:
    heard = inside & (left != 0) & (right != 0)
    wrong = np.where(heard, np.bitwise_count(left ^ right), 0).sum(axis=1)
    many = heard.sum(axis=1)
    either = (inside & ((left != 0) | (right != 0))).sum(axis=1)
    enough = (many >= MIN_SOUND_PRINTS) & (2 * many >= either)
    return np.asarray(enough & (wrong <= MAX_SOUND_ERROR * 32 * many))


def _groups(count: int, pairs: Int64[ndarray, "pairs 2"]) -> Int64[ndarray, " n"]:
    """The number of each clip's group, the connected part of all pairs."""
    edges = (np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1]))
    _, group = connected_components(coo_array(edges, shape=(count, count)), directed=False)
    return np.asarray(group, np.int64)


def _gathered(
    rank: Int64[ndarray, " n"],
    seen: Int64[ndarray, " n"],
    heard: Int64[ndarray, " n"],
    same: Callable[[Int64[ndarray, " m"], Int64[ndarray, " m"]], Bool[ndarray, " m"]],
) -> Int64[ndarray, " n"]:
    """Groups of copies in picture and sound: around the best clip of all that share both groups its
    copies, then the same of what is left. Those at either end of a chain are thus no copies.
    """
    _, cell = np.unique(np.stack([seen, heard]), axis=1, return_inverse=True)
    group = np.arange(len(rank))
    left = np.lexsort((rank, cell))
    while len(left):
        starts = np.flatnonzero(np.diff(cell[left], prepend=-1))
        sizes = np.diff(starts, append=len(left))
        best = np.repeat(left[starts], sizes)
        rest = left != best
        left, best = left[rest], best[rest]
        found = same(left, best)
        group[left[found]] = best[found]
        left = left[~found]
    return group


def _smallest(ids: pa.ChunkedArray, group: Int64[ndarray, " n"]) -> pa.Array:
    """The smallest id of each clip's group, None for a clip alone."""
    by_id = np.asarray(pc.sort_indices(ids).to_numpy())
    _, first, of, size = np.unique(
        group[by_id], return_index=True, return_inverse=True, return_counts=True
    )
    smallest, alone = np.empty(len(ids), np.int64), np.empty(len(ids), bool)
    smallest[by_id], alone[by_id] = by_id[first][of], size[of] == 1
    return ids.combine_chunks().take(pa.array(smallest, mask=alone))
