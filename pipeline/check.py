"""Checks a manifest from the outside in; every problem is one line."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float
from numpy import ndarray

from avdata.pipeline.decide import CHOICES
from avdata.pipeline.manifest import Manifest

Wrong = Iterator[tuple[str, Bool[ndarray, " n"]]]
"""What may be wrong with clips, and whether it is, of each."""

ROUNDING_MS = 0.01


def check_manifest(manifest: Manifest) -> list[str]:
    """What is wrong: sources not accounted for, clips twice, spans and events that cannot be, a
    decision that is not the policy's.
    """
    problems = [*_unaccounted(manifest), *_twice(manifest)]
    slack = 0.5 / manifest.settings()["fps"]  # A clip's last frame may be half missing.
    for clips, decided in manifest.decided():
        for what, wrong in (*_spans(clips, slack), *_events(clips), *_decisions(clips, decided)):
            named = clips.select(["clip_id", "source"]).filter(pa.array(wrong)).to_pylist()
            problems += [f"clip {a['clip_id']} of {a['source']['uri']}: {what}" for a in named]
    return problems


def _unaccounted(manifest: Manifest) -> list[str]:
    lost = manifest.unaccounted()["uri"].to_pylist()
    return [f"source {uri}: neither clips nor a reason; run `avdata ingest` again" for uri in lost]


def _twice(manifest: Manifest) -> list[str]:
    counts = pc.value_counts(manifest.table(["clip_id"])["clip_id"].combine_chunks())
    twice = counts.filter(pc.greater(pc.struct_field(counts, "counts"), 1)).to_pylist()
    return [f"clip {row['values']}: {row['counts']} rows" for row in twice]


def _spans(clips: pa.Table, slack: float) -> Wrong:
    start, end = (clips[name].to_numpy() for name in ("start_s", "end_s"))
    yield "ends before it starts", end <= start
    yield "lies beyond the source's end", end > _media_s(clips) + slack


def _events(clips: pa.Table) -> Wrong:
    """What is seen of an event may lie outside its clip, where the sound is late, but not outside
    the source.
    """
    lists = clips["events"].combine_chunks()
    of, events = pc.list_parent_indices(lists).to_numpy(), lists.flatten()
    t, heard, seen, lag = (
        np.asarray(pc.struct_field(events, name).to_numpy(zero_copy_only=False), float)
        for name in ("t", "t_audio", "t_video", "lag_ms")
    )
    start, end = (clips[name].to_numpy()[of] for name in ("start_s", "end_s"))
    outside = [(one < 0) | (one > end - start) for one in (t, heard)]
    unseen = (start + seen < -ROUNDING_MS / 1000) | (start + seen > _media_s(clips)[of])
    apart = abs(lag - 1000 * (heard - seen)) > ROUNDING_MS
    for what, wrong in (
        ("has an event outside itself", outside[0] | outside[1]),
        ("has an event that is seen outside the source", unseen),
        ("has an event whose lag is not that of its sound and picture", apart),
    ):
        yield what, np.isin(np.arange(len(clips)), of[wrong])


def _decisions(clips: pa.Table, decided: pa.Table) -> Wrong:
    """`decided` are the same rows as the policy in force has them."""
    for name in ("status", "reasons", *(choice.best for choice in CHOICES)):
        was, now = (_plain(table, name) for table in (clips, decided))
        wrong = np.array([one != other for one, other in zip(was, now, strict=True)], bool)
        yield f"its {name} is not what policy.yaml gives; run `avdata select` again", wrong


def _plain(clips: pa.Table, name: str) -> list[object]:
    head, *rest = name.split(".")
    column = pc.struct_field(clips[head], rest) if rest else clips[head]
    plain: list[object] = column.to_pylist()
    return plain


def _media_s(clips: pa.Table) -> Float[ndarray, " n"]:
    found: Float[ndarray, " n"] = pc.struct_field(clips["media"], "duration_s").to_numpy()
    return found
