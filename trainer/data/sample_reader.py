"""Reads one sample into its seat of a batch: one range, no copy but the kernel's, every member
checked against the digest in the index.
"""

import threading
import time
from contextlib import suppress

import numpy as np
import xxhash

from avdata.errors import CorruptShard
from avdata.pipeline.shards.npy import require_header
from avdata.pipeline.shards.retry import Attempts
from avdata.pipeline.shards.store import Store
from avdata.trainer.data.cache import RangeCache
from avdata.trainer.data.counters import Counters
from avdata.trainer.data.layout import Laid


class SampleReader:
    """Reads from one store, from any number of threads."""

    def __init__(
        self, store: Store, attempts: Attempts, counters: Counters, cache: RangeCache | None = None
    ) -> None:
        self._store, self._counters = store, counters
        self._attempts = attempts
        self._cache = cache
        self._begun: dict[tuple[bytes, tuple[int, ...]], xxhash.xxh3_64] = {}
        """Digests of the headers that are known to be right, to go on from."""

    def read(self, laid: Laid, stop: threading.Event | None = None) -> None:
        """Fills a seat; `stop` says that nobody wants it any more.

        CorruptShard when the bytes are not those that were written; RunError when there is no
        answer.
        """
        if laid.error is not None:
            raise laid.error
        began = time.perf_counter()
        if self._cache is None or not self._from_cache(laid, self._cache):
            self._attempts(lambda: self._from_store(laid), stop)
        for blank in laid.blanks:
            np.frombuffer(blank, np.uint8)[:] = 0
        self._counters.read(laid.num_bytes, time.perf_counter() - began)

    def _from_cache(self, laid: Laid, cache: RangeCache) -> bool:
        tar = laid.sample.tar
        if all(cache.read_into(tar, *one) for one in laid.ranges):
            with suppress(CorruptShard):
                self._check(laid)
                self._counters.add("cache_hits")
                return True
        self._counters.add("cache_misses")
        return False

    def _from_store(self, laid: Laid) -> None:
        tar = laid.sample.tar
        for offset, pieces in laid.ranges:
            self._counters.add("reads")
            self._store.read_into(tar, offset, pieces)
        self._check(laid)
        if self._cache is not None:
            for offset, pieces in laid.ranges:
                self._cache.put(tar, offset, pieces)

    def _check(self, laid: Laid) -> None:
        for part, pieces in laid.checks:
            header = (bytes(pieces[0]), part.shape)
            begun = self._begun.get(header)
            state = xxhash.xxh3_64(header[0]) if begun is None else begun.copy()
            for piece in pieces[1:]:
                state.update(piece)
            if state.intdigest() != part.digest:
                tar, key = laid.sample.tar, laid.sample.key
                raise CorruptShard(
                    f"{self._store.root}/{tar}: {key}.{part.role}.npy does not have the bytes that "
                    "were written; delete the shard and run `avdata encode` again"
                )
            if begun is None:
                require_header(*header, f"{laid.sample.tar}: {laid.sample.key}.{part.role}.npy")
                self._begun[header] = xxhash.xxh3_64(header[0])
