"""A dataset opened for training: its table, a reader for its samples, and the plans over them."""

import heapq
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from avdata import storage
from avdata.pipeline.shards.dataset import Dataset, SampleEntry, describe_dataset, entry_of
from avdata.pipeline.shards.open_table import open_table
from avdata.pipeline.shards.retry import Attempts
from avdata.pipeline.shards.store import open_store
from avdata.pipeline.shards.table import Table
from avdata.trainer.data.cache import RangeCache
from avdata.trainer.data.config import MixConfig, ReadConfig
from avdata.trainer.data.counters import Counters
from avdata.trainer.data.plan import Plan
from avdata.trainer.data.sample_reader import SampleReader
from avdata.trainer.data.selection import buckets_of

PATCH = 4
"""Video latents that make one token of the model: 1 x 2 x 2."""


@dataclass(frozen=True, slots=True)
class Source:
    """What all loaders of one process share."""

    dataset: Dataset
    table: Table
    reader: SampleReader
    counters: Counters

    def entries(self, split: str, count: int) -> list[SampleEntry]:
        """So many samples of a split, of all its buckets alike: those whose keys hash lowest."""
        spans = [np.arange(first, last) for _, first, last in self.table.spans(split)]
        ranked = (
            (xxhash.xxh3_64_intdigest(key), row)
            for rows in spans
            for key, row in zip(self.table.rows[rows]["key"].tolist(), rows.tolist(), strict=True)
        )
        return [entry_of(self.table, row) for _, row in heapq.nsmallest(count, ranked)]


@dataclass(frozen=True, slots=True)
class Order:
    """A plan, and all that it depends on."""

    plan: Plan
    identity: dict[str, Any]


def open_source(shards: str | Path, read: ReadConfig) -> Source:
    """UsageError where there are no shards; see `open_table`."""
    dataset = describe_dataset(storage.place(shards))
    table = open_table(dataset)
    counters = Counters()
    store = open_store(str(shards), read.timeout_seconds, 2 * read.threads)
    attempts = Attempts(read.attempts, lambda: counters.add("retries"))
    cache = None
    if read.cache is not None:
        most = int(read.cache_gib * 2**30)
        cache = RangeCache(Path(read.cache), most, dataset.digest)
    return Source(dataset, table, SampleReader(store, attempts, counters, cache), counters)


def order_of(
    source: Source, mix: MixConfig, batch_size: int, seed: int, split: str = "train"
) -> Order:
    """The order in which a split is trained on."""
    buckets = buckets_of(source.table, split, mix, batch_size, PATCH)
    identity = {
        "dataset": source.dataset.digest,
        "split": split,
        "seed": seed,
        "batch_sizes": {name: buckets[name].batch_size for name in sorted(buckets)},
        "samples": {
            name: {str(group.weight): len(group.samples) for group in buckets[name].groups}
            for name in sorted(buckets)
        },
        "mix": _plain(mix),
    }
    return Order(Plan(buckets, seed, mix.remainder), identity)


def _plain(mix: MixConfig) -> dict[str, Any]:
    """As JSON, without what makes no difference, so that settings of one meaning are equal."""
    plain = asdict(mix)
    for name in ("only_subsets", "without_subsets", "only_buckets"):
        plain[name] = sorted(set(plain[name]))
    for name in ("subset_weights", "source_weights"):
        plain[name] = {key: weight for key, weight in plain[name].items() if weight != 1}
    if mix.batch_tokens is None:
        del plain["batch_multiple"]
    return plain


def longest_texts(source: Source, roles: Sequence[str]) -> dict[str, int]:
    """Tokens that the encoders of the shards give at most."""
    specs = source.dataset.specs
    both = {
        "video_text": specs.video_text.max_tokens,
        "audio_text": specs.audio_text.max_tokens,
    }
    return {role: both[role] for role in roles if role in both}
