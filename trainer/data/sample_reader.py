"""Reads one sample into its seat of a batch: one range, no copy but the kernel's, every member
checked against the digest in the index.
"""

import math
import threading
import time
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import xxhash
from jaxtyping import Int64
from numpy import ndarray
from numpy.typing import NDArray

from avdata.errors import CorruptShard
from avdata.pipeline.shards.index import Member
from avdata.pipeline.shards.npy import require_header
from avdata.pipeline.shards.retry import Attempts
from avdata.pipeline.shards.store import Store
from avdata.pipeline.shards.table import MEMBERS, Table
from avdata.trainer.data.cache import RangeCache
from avdata.trainer.data.counters import Counters

TEXTS = ("video_text", "audio_text")
ITEM = 2
"""Bytes of a float16."""
LARGEST_HEADER = 4096
LARGEST_GAP = 1 << 16
"""Bytes of members that nobody wants, up to which one range is read and not two."""

Seat = Mapping[str, NDArray[np.float16]]
"""Role to where its array goes: latents as they are, text (longest d)."""


class Part(NamedTuple):
    """One wanted array of a sample; a tuple takes less than half as long to make as a frozen
    dataclass, and an epoch makes one for each array.
    """

    role: str
    offset: int
    length: int
    digest: int
    shape: tuple[int, ...]


class Located(NamedTuple):
    """One sample's wanted arrays, in the order in which they lie."""

    key: str
    tar: str
    parts: Sequence[Part]


_BY_OFFSET = attrgetter("offset")


def locate(table: Table, rows: Int64[ndarray, " some"], roles: Sequence[str]) -> list[Located]:
    """Of rows of the table."""
    found = table.rows[rows]
    columns = [MEMBERS.index(f"{role}.npy") for role in roles]
    shards = (np.searchsorted(table.first, rows, side="right") - 1).tolist()
    keys, places = found["key"].tolist(), found["places"][:, columns].tolist()
    samples = []
    for key, shard, some in zip(keys, shards, places, strict=True):
        parts = [
            Part(role, offset, length, digest, table.shapes[shape])
            for role, (offset, length, digest, shape) in zip(roles, some, strict=True)
        ]
        parts.sort(key=_BY_OFFSET)
        samples.append(Located(key.decode(), f"{table.shards[shard].name}.tar", parts))
    return samples


def locate_members(
    key: str, tar: str, members: Mapping[str, Member], roles: Sequence[str]
) -> Located:
    """Of a sample as its shard's index has it."""
    parts = []
    for role in roles:
        one = members[f"{role}.npy"]
        parts.append(Part(role, one.offset, one.length, int(one.digest, 16), tuple(one.shape)))
    parts.sort(key=_BY_OFFSET)
    return Located(key, tar, parts)


Range = tuple[int, list[memoryview]]
"""An offset in a tar, and where the bytes from there on go."""


class SampleReader:
    """Reads from one store, from any number of threads."""

    def __init__(
        self, store: Store, attempts: Attempts, counters: Counters, cache: RangeCache | None = None
    ) -> None:
        self._store, self._counters = store, counters
        self.attempts = attempts
        self._cache = cache
        self._threads = threading.local()
        self._headers: set[tuple[bytes, tuple[int, ...]]] = set()

    def read(self, sample: Located, seat: Seat) -> dict[str, int]:
        """Fills a seat; answers how many tokens each text has there, zeros after them.

        CorruptShard when the bytes are not those that were written; RunError when there is no
        answer.
        """
        began = time.perf_counter()
        ranges, checks, lengths = _layout(sample, seat, _Scratch(self._threads))
        if not self._from_cache(sample, ranges, checks):
            self.attempts(lambda: self._from_store(sample, ranges, checks))
        num_bytes = sum(part.length for part in sample.parts)
        self._counters.read(num_bytes, time.perf_counter() - began)
        return lengths

    def _from_cache(self, sample: Located, ranges: list[Range], checks: list["Check"]) -> bool:
        if self._cache is None:
            return False
        if all(self._cache.read_into(sample.tar, *one) for one in ranges):
            try:
                self._check(sample, checks)
            except CorruptShard:
                for one in ranges:
                    self._cache.drop(sample.tar, *one)
            else:
                self._counters.add("cache_hits")
                return True
        self._counters.add("cache_misses")
        return False

    def _from_store(self, sample: Located, ranges: list[Range], checks: list["Check"]) -> None:
        for offset, pieces in ranges:
            self._counters.add("reads")
            self._store.read_into(sample.tar, offset, pieces)
        self._check(sample, checks)
        if self._cache is not None:
            for offset, pieces in ranges:
                self._cache.put(sample.tar, offset, pieces)

    def _check(self, sample: Located, checks: list["Check"]) -> None:
        for part, pieces in checks:
            state = xxhash.xxh3_64()
            for piece in pieces:
                state.update(piece)
            if state.intdigest() != part.digest:
                raise CorruptShard(
                    f"{self._store.root}/{sample.tar}: {sample.key}.{part.role}.npy does not have "
                    "the bytes that were written; delete the shard and run `avdata encode` again"
                )
            header = (bytes(pieces[0]), part.shape)
            if header not in self._headers:
                require_header(*header, f"{sample.tar}: {sample.key}.{part.role}.npy")
                self._headers.add(header)


Check = tuple[Part, list[memoryview]]
"""A member and the pieces that have its bytes, its header first."""


def _layout(
    sample: Located, seat: Seat, scratch: "_Scratch"
) -> tuple[list[Range], list[Check], dict[str, int]]:
    """Where the bytes of a sample go, and how many tokens its texts have there."""
    lengths: dict[str, int] = {}
    checks: list[Check] = []
    ranges: list[Range] = []
    end = -1
    for part in sample.parts:
        gap = part.offset - end
        if end < 0 or gap < 0 or gap > LARGEST_GAP:
            ranges.append((part.offset, []))
        elif gap:
            ranges[-1][1].append(scratch.take(gap))
        pieces, count = _pieces(sample, part, seat, scratch)
        ranges[-1][1].extend(pieces)
        checks.append((part, pieces))
        if part.role in TEXTS:
            lengths[part.role] = count
        end = part.offset + part.length
    return ranges, checks, lengths


class _Scratch:
    """A thread's memory for bytes that nobody wants."""

    def __init__(self, threads: threading.local) -> None:
        self._threads = threads
        self._used = 0

    def take(self, size: int) -> memoryview:
        room: Any = getattr(self._threads, "scratch", None)
        if room is None or self._used + size > len(room):
            # Pieces taken before keep the old memory alive.
            room = self._threads.scratch = memoryview(bytearray(2 * (self._used + size)))
        self._used += size
        piece: memoryview = room[self._used - size : self._used]
        return piece


def _pieces(
    sample: Located, part: Part, seat: Seat, scratch: _Scratch
) -> tuple[list[memoryview], int]:
    """Where a member's bytes go: its header, the seat, and what the seat has no room for."""
    place = seat[part.role]
    count, wanted = 0, part.shape
    if part.role in TEXTS:
        count = min(part.shape[0], len(place))
        wanted = (part.shape[0], place.shape[1])
        place[count:] = 0
        place = place[:count]
    elif part.shape != place.shape:
        wanted = place.shape
    if part.shape != wanted:
        raise CorruptShard(
            f"{sample.tar}: {sample.key}.{part.role}.npy has shape {part.shape}, the others of its "
            f"bucket {wanted}"
        )
    size = ITEM * math.prod(part.shape)
    header = part.length - size
    if not 0 < header <= LARGEST_HEADER:
        raise CorruptShard(
            f"{sample.tar}: {sample.key}.{part.role}.npy has {part.length} bytes for {part.shape}"
        )
    into = place.data.cast("B") if place.size else memoryview(b"")
    pieces = [scratch.take(header), into]
    if size > len(into):
        pieces.append(scratch.take(size - len(into)))
    return pieces, count
