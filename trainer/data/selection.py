"""Filters and weights over the index: which samples of a split train, how often an epoch, and in
batches of which size. Both are masks over columns of the table; no sample is opened.
"""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

import numpy as np
from jaxtyping import Float64, UInt64
from numpy import ndarray

from avdata.errors import UsageError
from avdata.pipeline.shards.table import MEMBERS, Table
from avdata.trainer.data.bucket import Bucket, Group
from avdata.trainer.data.config import MixConfig
from avdata.trainer.data.rows import Rows, joined, rows_between, rows_where

CHUNK = 1 << 16
"""Rows that are weighed at once: what is computed of them stays in the processor's cache."""

Spans = list[tuple[int, int]]


def buckets_of(
    table: Table, split: str, mix: MixConfig, batch_size: int, patch: int
) -> dict[str, Bucket]:
    """The buckets of a split; `patch` latents of the video make one token.

    UsageError for a bucket, a subset or a source that is not there, or where nothing is left.
    """
    spans: dict[str, Spans] = {}
    for shard, first, last in table.spans(split):
        mine = spans.setdefault(shard.bucket, [])
        joins = bool(mine) and mine[-1][1] == first  # Neighbours: one look at both.
        mine.append((mine.pop()[0] if joins else first, last))
    _require_known("bucket", mix.only_buckets, spans)
    chosen = {name: spans[name] for name in spans if name in (mix.only_buckets or spans)}
    found = {}
    for name, some in chosen.items():
        groups = [
            Group(rows, Fraction(str(weight))) for weight, rows in _weighted(table, some, mix)
        ]
        size = batch_size
        if mix.batch_tokens is not None:
            size = max(1, mix.batch_tokens // _tokens(table, some[0][0], patch))
            size = max(1, size // mix.batch_multiple) * mix.batch_multiple
        if groups:
            found[name] = Bucket(groups, size)
    if not found:
        raise UsageError(
            f"no samples to train on: the split {split} has {sum(map(_count, spans.values()))}, "
            "and only_subsets, without_subsets, only_buckets and weights leave none"
        )
    return found


def _weighted(table: Table, spans: Spans, mix: MixConfig) -> list[tuple[float, Rows]]:
    """The rows of a bucket by their weight, those of weight 0 left out."""
    if not (mix.only_subsets or mix.without_subsets or mix.subset_weights or mix.source_weights):
        return [(1.0, rows_between(spans))] if _count(spans) else []
    by_source = _by_source(table, mix.source_weights)
    found: dict[float, list[Rows]] = {}
    for start, end in spans:
        for first in range(start, end, CHUNK):
            weights = _weights(table, first, min(first + CHUNK, end), mix, by_source)
            while (left := weights > 0).any():
                one = float(weights[left.argmax()])
                alike = weights == one
                found.setdefault(one, []).append(rows_where(alike, first))
                weights[alike] = 0
    return [(one, joined(found[one])) for one in sorted(found)]


def _weights(
    table: Table, first: int, last: int, mix: MixConfig, by_source: Float64[ndarray, " sources"]
) -> Float64[ndarray, " rows"]:
    bits = table.subsets[first:last]
    weights = np.ones(last - first)
    if mix.only_subsets:
        weights *= (bits & _bits(table, mix.only_subsets)) != 0
    weights *= (bits & _bits(table, mix.without_subsets)) == 0
    for name, weight in mix.subset_weights.items():
        weights *= np.where(bits & _bits(table, (name,)), weight, 1.0)
    if mix.source_weights:
        weights *= by_source[table.sources[first:last]]
    return weights


def _bits(table: Table, names: Sequence[str]) -> UInt64[ndarray, ""]:
    _require_known("subset", names, table.subset_names)
    found = sum(1 << table.subset_names.index(name) for name in set(names))
    return np.array(found, np.uint64)


def _by_source(table: Table, weights: Mapping[str, float]) -> Float64[ndarray, " sources"]:
    names = table.source_names[:]
    found = np.ones(len(names))
    for name, weight in weights.items():
        named = np.char.startswith(names, name.encode())
        if not named.any():
            raise UsageError(f"source_weights.{name}: no source's digest begins like this")
        found[named] *= weight
    return found


def _tokens(table: Table, row: int, patch: int) -> int:
    """Latent tokens of one sample, video and audio."""
    (places,) = table.rows[row : row + 1]["places"]
    video, audio = (
        table.shapes[int(places[MEMBERS.index(f"{role}.npy")]["shape"])]
        for role in ("video", "audio")
    )
    return int(np.prod(video[1:])) // patch + audio[-1]


def _count(spans: Spans) -> int:
    return sum(last - first for first, last in spans)


def _require_known(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise UsageError(f"no {what} {name} in the shards; there are: {listed}")
