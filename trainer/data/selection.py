"""Filters and weights over the index: which samples of a split train, how often an epoch, and in
batches of which size. Both are masks over columns of the table; no sample is opened.
"""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Int32, UInt64
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
        groups = [Group(rows, weight) for weight, rows in _weighted(table, some, mix)]
        if groups:
            tokens = _tokens(table, some[0][0], patch)
            found[name] = Bucket(groups, _batch_size(name, tokens, mix, batch_size))
    if not found:
        raise UsageError(
            f"no samples to train on: the split {split} has {sum(map(_count, spans.values()))}, "
            "and only_subsets, without_subsets, only_buckets and weights leave none"
        )
    return found


def _weighted(table: Table, spans: Spans, mix: MixConfig) -> list[tuple[Fraction, Rows]]:
    """The rows of a bucket by their weight, those of weight 0 left out."""
    if not (mix.only_subsets or mix.without_subsets or mix.subset_weights or mix.source_weights):
        return [(Fraction(1), rows_between(spans))] if _count(spans) else []
    weigh = _Weights(table, mix)
    found: dict[Fraction, list[Rows]] = {}
    for start, end in spans:
        for first in range(start, end, CHUNK):
            for weight, alike in weigh(first, min(first + CHUNK, end)).items():
                found.setdefault(weight, []).append(rows_where(alike, first))
    return [(weight, joined(found[weight])) for weight in sorted(found)]


class _Weights:
    """Exact products, so that they depend on no order: rows alike in what is weighed have one."""

    def __init__(self, table: Table, mix: MixConfig) -> None:
        self._table = table
        self._only, self._without = (
            _bits(table, mix.only_subsets),
            _bits(table, mix.without_subsets),
        )
        self._subsets = {
            int(_bits(table, (name,))): _exact(weight)
            for name, weight in mix.subset_weights.items()
        }
        self._weighed = _bits(table, tuple(mix.subset_weights))
        self._by_source, self._sources = _by_source(table, mix.source_weights)

    def __call__(self, first: int, last: int) -> dict[Fraction, Bool[ndarray, " rows"]]:
        """Which rows have which weight, for each above 0 that there is."""
        bits = self._table.subsets[first:last]
        left = (bits & self._without) == 0
        if self._only:
            left &= (bits & self._only) != 0
        bits = bits & self._weighed
        sources = np.zeros(len(bits), np.int32)
        if len(self._sources) > 1:
            sources = self._by_source[self._table.sources[first:last]]
        found: dict[Fraction, Bool[ndarray, " rows"]] = {}
        while left.any():
            one = left.argmax()
            alike = left & (bits == bits[one]) & (sources == sources[one])
            left &= ~alike
            weight = self._sources[sources[one]]
            for bit, factor in self._subsets.items():
                weight *= factor if bit & int(bits[one]) else 1
            if weight:
                found[weight] = alike | found[weight] if weight in found else alike
        return found


def _bits(table: Table, names: Sequence[str]) -> UInt64[ndarray, ""]:
    _require_known("subset", names, table.subset_names)
    found = sum(1 << table.subset_names.index(name) for name in set(names))
    return np.array(found, np.uint64)


def _by_source(
    table: Table, weights: Mapping[str, float]
) -> tuple[Int32[ndarray, " sources"], list[Fraction]]:
    """For each source the number of its weight, and the weights."""
    names = table.source_names[:]
    numbers, found = np.zeros(len(names), np.int32), [Fraction(1)]
    for name, weight in weights.items():
        named = np.char.startswith(names, name.encode())
        if not named.any():
            raise UsageError(f"source_weights.{name}: no source's digest begins like this")
        for number in np.unique(numbers[named]):
            # Those of another, overlapping name have both.
            numbers[named & (numbers == number)] = len(found)
            found.append(found[number] * _exact(weight))
    return numbers, found


def _exact(weight: float) -> Fraction:
    """As it is written: 0.1 is a tenth."""
    return Fraction(str(weight))


def _batch_size(bucket: str, tokens: int, mix: MixConfig, otherwise: int) -> int:
    """As many samples of so many tokens as the budget allows."""
    if mix.batch_tokens is None:
        return otherwise
    size = mix.batch_tokens // tokens // mix.batch_multiple * mix.batch_multiple
    if size == 0:
        raise UsageError(
            f"bucket {bucket}: data.mix.batch_tokens = {mix.batch_tokens} has no room for "
            f"{mix.batch_multiple} (batch_multiple) of its samples, of {tokens} tokens each; give "
            f"{tokens * mix.batch_multiple} at least, or name the other buckets in only_buckets"
        )
    return size


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
