"""A policy applied: which clips are kept, and which of several that are one to us is the best.

Rules are applied in turns, so that the best of a group is one that they leave. First those about
what is measured; among what they leave, the best of each group of copies is told. Then those about
captions and meaning, which copies that are not best are not asked for; then the best of those that
mean the same is told, of pictures and of sounds. Where the rules leave none of a group, the best of
all bears the name. Everything is done column by column with Arrow, so a million rows take seconds.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float, Int64
from numpy import ndarray

from avdata.pipeline.conditions import conditions, holds
from avdata.pipeline.policy import Policy


@dataclass(frozen=True, slots=True)
class Choice:
    """A column that says which clip of a group is best, and the column of the group."""

    best: str
    group: str
    alone: bool | None
    """What it says of a clip without a group."""


CHOICES = (
    Choice("duplicates.best", "duplicates.copy_group", alone=True),
    Choice("semantics.picture_best", "semantics.picture_group", alone=None),
    Choice("semantics.sound_best", "semantics.sound_group", alone=None),
)
ASKED = ("captions", "caption_failure", "semantics")
"""Known of clips alone that were kept when models were asked."""
RANKED_BY = ("clip_id", "source.size_bytes", "media.duration_s", "media.width", "media.height")

Best = dict[str, pa.Array]
"""Ids of the best clips of all groups, by the column that says so."""
Groups = Callable[[list[str] | None], Iterator[pa.Table]]
"""Gives all rows anew, some at a time and at least once: all columns, or those of some names."""


def decide(clips: pa.Table, policy: Policy, best: Best | None = None) -> pa.Table:
    """The same rows with `status`, `reasons` and which are best as the policy has them; `best` is
    for rows that are but a part of the manifest.
    """
    best = choose(clips, policy) if best is None else best
    for choice in CHOICES:
        clips = _told(clips, choice, best[choice.best])
    names = list(policy.rules)
    masks = [holds(text, clips).to_pylist() for text in policy.rules.values()]
    reasons = [
        [name for name, hit in zip(names, row, strict=True) if hit]
        for row in (zip(*masks, strict=True) if masks else ([] for _ in range(len(clips))))
    ]
    schema = clips.schema
    decided = {
        "status": pa.array(["drop" if row else "keep" for row in reasons], pa.string()),
        "reasons": pa.array(reasons, schema.field("reasons").type),
    }
    for column, values in decided.items():
        at = schema.get_field_index(column)
        clips = clips.set_column(at, schema.field(at), values)
    return clips


def choose(clips: pa.Table, policy: Policy) -> Best:
    """The best of every group; of `clips` those in a group are enough, and their `needed`."""
    rank, dropped = ranks(clips), np.zeros(len(clips), bool)
    best: Best = {}
    for turn, choice in enumerate(CHOICES):
        for text in policy.rules.values():
            if _turn(text) == turn:
                dropped |= holds(text, clips).to_numpy()
        best[choice.best] = _best(clips, choice.group, dropped, rank)
        clips = _told(clips, choice, best[choice.best])
    return best


def decided(groups: Groups, policy: Policy) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Clips that come a group at a time: as they are, and as the policy has them."""
    some = [in_a_group(one) for one in groups(needed(policy))]
    best = choose(pa.concat_tables(some), policy)
    for clips in groups(None):
        yield clips, decide(clips, policy, best)


def needed(policy: Policy) -> list[str]:
    """Columns that `choose` reads."""
    asked = [one.column for text in policy.rules.values() for one in conditions(text)]
    groups = [name for choice in CHOICES for name in (choice.group, choice.best)]
    return sorted({*RANKED_BY, *groups, *asked})


def in_a_group(clips: pa.Table) -> pa.Table:
    """The rows that `choose` needs."""
    known = (pc.is_valid(_leaf(clips, choice.group)) for choice in CHOICES)
    return clips.filter(functools.reduce(pc.or_, known))


def ranks(clips: pa.Table) -> Int64[ndarray, " n"]:
    """Each clip's place among all, the best first: more pixels times bytes a second, then the
    longer source, then the smaller id.
    """
    source, media = clips["source"], clips["media"]
    seconds: Float[ndarray, " n"] = pc.struct_field(media, "duration_s").to_numpy()
    size = pc.struct_field(source, "size_bytes").to_numpy() / np.maximum(seconds, 1e-9)
    pixels = (
        pc.struct_field(media, "width").to_numpy() * pc.struct_field(media, "height").to_numpy()
    )
    by_id = np.argsort(pc.sort_indices(clips["clip_id"]).to_numpy())
    order = np.lexsort((by_id, -seconds, -(pixels * size)))
    found: Int64[ndarray, " n"] = np.argsort(order)
    return found


def _turn(text: str) -> int:
    """How many choices a rule comes after."""
    columns = [one.column for one in conditions(text)]
    told = [turn for turn, choice in enumerate(CHOICES, 1) if choice.best in columns]
    asked = any(column.split(".")[0] in ASKED for column in columns)
    return max([*told, int(asked)])


def _best(
    clips: pa.Table, group: str, dropped: Bool[ndarray, " n"], rank: Int64[ndarray, " n"]
) -> pa.Array:
    named = _leaf(clips, group)
    number = named.combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy()
    order = np.lexsort((rank, dropped, number))
    first = np.diff(number[order], prepend=-1) != 0
    return clips["clip_id"].combine_chunks().take(pa.array(order[first]))


def _told(clips: pa.Table, choice: Choice, best: pa.Array) -> pa.Table:
    head, leaf = choice.best.split(".")
    at, parts = clips.schema.get_field_index(head), clips[head].combine_chunks()
    alone = pc.is_null(_leaf(clips, choice.group))
    told = pc.if_else(
        alone, pa.scalar(choice.alone, pa.bool_()), pc.is_in(clips["clip_id"], value_set=best)
    )
    fields = list(clips.schema.field(at).type)
    values = [
        told.combine_chunks() if field.name == leaf else pc.struct_field(parts, field.name)
        for field in fields
    ]
    column = pa.StructArray.from_arrays(values, fields=fields, mask=pc.is_null(parts))
    return clips.set_column(at, clips.schema.field(at), column)


def _leaf(clips: pa.Table, name: str) -> pa.ChunkedArray:
    head, *rest = name.split(".")
    return pc.struct_field(clips[head], rest)
