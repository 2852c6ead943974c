"""Reads one sample into its seat of a batch: one range, no copy but the kernel's, every member
checked against the digest in the index.
"""

import math
import time
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

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


class Place(NamedTuple):
    """Where the arrays of one role go: those of all samples of a batch, one after the other."""

    memory: memoryview
    """Their bytes."""
    size: int
    """Of one of them."""
    shape: tuple[int, ...]
    """Latents as they are, text (longest d)."""


Places = Mapping[str, Place]
"""By role."""


def places_of(arrays: Mapping[str, NDArray[np.float16]]) -> Places:
    """Of contiguous arrays (b ...)."""
    return {
        role: Place(memoryview(array.view(np.uint8).reshape(-1)), array[0].nbytes, array.shape[1:])
        for role, array in arrays.items()
    }


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
        self._begun: dict[tuple[bytes, tuple[int, ...]], xxhash.xxh3_64] = {}
        """Digests of the headers that are known to be right, to go on from."""

    def read(self, sample: Located, places: Places, seat: int) -> dict[str, int]:
        """Fills a seat of a batch; answers how many tokens each text has there, zeros after them.

        CorruptShard when the bytes are not those that were written; RunError when there is no
        answer.
        """
        began = time.perf_counter()
        ranges, checks, lengths = _layout(sample, places, seat)
        if not self._from_cache(sample, ranges, checks):
            self.attempts(lambda: self._from_store(sample, ranges, checks))
        num_bytes = sum([part.length for part in sample.parts])
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
            header = (bytes(pieces[0]), part.shape)
            begun = self._begun.get(header)
            state = xxhash.xxh3_64(header[0]) if begun is None else begun.copy()
            for piece in pieces[1:]:
                state.update(piece)
            if state.intdigest() != part.digest:
                raise CorruptShard(
                    f"{self._store.root}/{sample.tar}: {sample.key}.{part.role}.npy does not have "
                    "the bytes that were written; delete the shard and run `avdata encode` again"
                )
            if begun is None:
                require_header(*header, f"{sample.tar}: {sample.key}.{part.role}.npy")
                self._begun[header] = xxhash.xxh3_64(header[0])


Check = tuple[Part, list[memoryview]]
"""A member and the pieces that have its bytes, its header first."""


def _layout(
    sample: Located, places: Places, seat: int
) -> tuple[list[Range], list[Check], dict[str, int]]:
    """Where the bytes of a sample go, and how many tokens its texts have there."""
    lengths: dict[str, int] = {}
    checks: list[Check] = []
    ranges: list[Range] = []
    end = -LARGEST_GAP - 1
    for part in sample.parts:
        role, offset, length, _, shape = part
        memory, size, wanted = places[role]
        room = memory[seat * size : (seat + 1) * size]
        left = 0
        if shape != wanted:
            size, left = _differs(sample, part, room, wanted)
            room = room[: size - left]
        if role in TEXTS:
            lengths[role] = min(shape[0], wanted[0])
        header = length - size
        if not 0 < header <= LARGEST_HEADER:
            raise CorruptShard(
                f"{sample.tar}: {sample.key}.{role}.npy has {length} bytes for {shape}"
            )
        pieces = [_unwanted(header), room]
        if left:
            pieces.append(_unwanted(left))
        if not 0 <= offset - end <= LARGEST_GAP:
            ranges.append((offset, []))
        elif offset > end:
            ranges[-1][1].append(_unwanted(offset - end))
        ranges[-1][1].extend(pieces)
        checks.append((part, pieces))
        end = offset + length
    return ranges, checks, lengths


def _differs(
    sample: Located, part: Part, room: memoryview, wanted: tuple[int, ...]
) -> tuple[int, int]:
    """Bytes of a text of other length than its place, and those that the place has no room for;
    the rest of a larger place becomes zero. CorruptShard for any other difference.
    """
    if part.role not in TEXTS or part.shape[1:] != wanted[1:]:
        raise CorruptShard(
            f"{sample.tar}: {sample.key}.{part.role}.npy has shape {part.shape}, the others of its "
            f"bucket {wanted}"
        )
    size = ITEM * math.prod(part.shape)
    np.frombuffer(room, np.uint8)[size:] = 0
    return size, max(0, size - len(room))


def _unwanted(size: int) -> memoryview:
    """Memory for bytes that are only checked, or not even that."""
    return memoryview(bytearray(size))
