"""All indices of a dataset as a few columns on disk, of which rows are read as they are needed.

Made once from the indices of the shards, each checked against the digest that dataset.json lists,
and kept under the dataset's digest in a cache folder: AVDATA_CACHE, else ~/.cache/avdata. It can
be deleted at any time, and has digests of its own, checked where it is read. Opening it takes as
long for ten million samples as for ten, and memory as much.
"""

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from avdata import storage
from avdata.errors import CorruptShard
from avdata.pipeline.shards.column import Column, seal, write_column
from avdata.pipeline.shards.index import IndexedSample, Member
from avdata.pipeline.shards.sample import ARRAYS

VERSION = 3
MEMBERS = (*(f"{name}.npy" for name in ARRAYS), "json")
PLACE = np.dtype([("offset", "<i8"), ("length", "<i8"), ("digest", "<u8"), ("shape", "<i4")])
MAX_SUBSETS, KEY_BYTES = 64, 64
ROW = np.dtype([("key", f"S{KEY_BYTES}"), ("places", PLACE, len(MEMBERS))])
"""What reading a sample takes, in one place; members are in the order of `MEMBERS`."""
COLUMNS = {
    "rows": ROW,
    "sources": np.dtype("<i4"),
    "source_names": np.dtype("S"),
    "subsets": np.dtype("<u8"),
}
STALE_SECONDS = 24 * 3600.0
"""After which nobody can be writing a table any more."""


@dataclass(frozen=True, slots=True)
class TableShard:
    """What dataset.json says of a shard."""

    name: str
    split: str
    bucket: str


@dataclass(frozen=True, slots=True)
class Table:
    """Samples are rows, in the order of the shards and within them."""

    shards: Sequence[TableShard]
    first: Int64[ndarray, " shards_and_one"]
    """Row of the first sample of each shard, and their number."""
    rows: Column
    """Of type `ROW`."""
    sources: Column
    """int32 indices into `source_names`."""
    source_names: Column
    """Digests, as bytes."""
    subsets: Column
    """uint64; bit k is `subset_names[k]`."""
    subset_names: Sequence[str]
    shapes: Sequence[tuple[int, ...]]
    """Those that the samples' arrays have; a place's `shape` is an index into it."""

    def __len__(self) -> int:
        return int(self.first[-1])

    def shard_of(self, row: int) -> TableShard:
        """The shard that a sample lies in."""
        return self.shards[int(np.searchsorted(self.first, row, side="right")) - 1]

    def keys(self, rows: Int64[ndarray, " some"]) -> list[str]:
        """The keys of some samples."""
        return [key.decode() for key in self.rows[rows]["key"].tolist()]

    def sample(self, row: int) -> IndexedSample:
        """A sample as its shard's index has it, but for what decoding it back gave."""
        one = slice(row, row + 1)
        bits, source = int(self.subsets[one][0]), int(self.sources[one][0])
        members = {}
        for name, place in zip(MEMBERS, self.rows[one]["places"][0], strict=True):
            offset, length, digest, shape = (int(part) for part in place)
            members[name] = Member(offset, length, f"{digest:016x}", list(self.shapes[shape]))
        return IndexedSample(
            key=self.keys(np.array([row]))[0],
            source=bytes(self.source_names[source : source + 1][0]).decode(),
            subsets=[name for k, name in enumerate(self.subset_names) if bits >> k & 1],
            members=members,
        )

    def spans(self, split: str) -> Iterator[tuple[TableShard, int, int]]:
        """Each shard of a split, with its first row and the row after its last."""
        for number, shard in enumerate(self.shards):
            if shard.split == split:
                yield shard, int(self.first[number]), int(self.first[number + 1])


class TableBuilder:
    """Writes samples in order into the arrays of a folder; they need not fit into memory."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self._sources: dict[str, int] = {}
        self._subsets: dict[str, int] = {}
        self._shapes: dict[tuple[int, ...], int] = {}
        self._first = [0]

        self._rows, self._source_numbers, self._subset_bits = (
            write_column(folder / f"{name}.npy", COLUMNS[name], count)
            for name in ("rows", "sources", "subsets")
        )

    def add(self, samples: Sequence[IndexedSample]) -> None:
        """Those of the next shard; CorruptShard for a sample that lacks a member."""
        first = self._first[-1]
        for row, sample in enumerate(samples, first):
            key = sample.key.encode()
            if len(key) > KEY_BYTES:
                raise CorruptShard(f"{sample.key}: a key of more than {KEY_BYTES} bytes")
            self._source_numbers[row] = self._sources.setdefault(sample.source, len(self._sources))
            self._subset_bits[row] = self._bits(sample.subsets)
            self._rows[row] = key, [self._place(sample, name) for name in MEMBERS]
        self._first.append(first + len(samples))

    def finish(self) -> None:
        """Writes what has no fixed size."""
        for one in (self._rows, self._source_numbers, self._subset_bits):
            one.flush()
        found = np.array([one.encode() for one in self._sources], dtype=np.bytes_)
        np.save(self._folder / "source_names.npy", found)
        seal_table(
            self._folder,
            shapes=[list(one) for one in self._shapes],
            subset_names=list(self._subsets),
            first=self._first,
        )

    def _place(self, sample: IndexedSample, name: str) -> tuple[int, int, int, int]:
        member = sample.members.get(name)
        if member is None:
            raise CorruptShard(f"{sample.key}: the index has no {name}; encode again")
        shape = self._shapes.setdefault(tuple(member.shape), len(self._shapes))
        return member.offset, member.length, int(member.digest, 16), shape

    def _bits(self, subsets: Sequence[str]) -> int:
        bits = 0
        for name in subsets:
            number = self._subsets.setdefault(name, len(self._subsets))
            if number >= MAX_SUBSETS:
                raise CorruptShard(f"more than {MAX_SUBSETS} subsets; the index has no bits left")
            bits |= 1 << number
        return bits


def seal_table(folder: Path, **named: list[Any]) -> None:
    """Writes the digests of its columns, and what `Table` has beside them."""
    for name, dtype in COLUMNS.items():
        seal(folder / f"{name}.npy", dtype)
    plain = {**named, "digest": storage.digest_json(named)}
    (folder / "table.json").write_text(json.dumps(plain))


def cache_folder() -> Path:
    """Where what can be made again is kept."""
    named = os.environ.get("AVDATA_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "avdata"


def table_folder(digest: str) -> Path:
    """Of a dataset's table, which may not be there yet."""
    return cache_folder() / f"table-v{VERSION}-{digest}"


@contextmanager
def committed_table(folder: Path, count: int) -> Iterator[TableBuilder]:
    """Takes a table of so many samples, and commits it when the block ends well.

    Where another process has committed it meanwhile, that one is kept.
    """
    _remove_stale(folder.parent)
    temporary = folder.with_name(f"{folder.name}.tmp-{uuid.uuid4().hex[:12]}")
    temporary.mkdir(parents=True)
    try:
        builder = TableBuilder(temporary, count)
        yield builder
        builder.finish()
        for path in (*temporary.iterdir(), temporary):
            _to_disk(path)
        try:
            temporary.rename(folder)
            _to_disk(folder.parent)
        except OSError:
            if not (folder / "table.json").exists():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_table(folder: Path) -> None:
    """At once for other processes, which may be reading it."""
    aside = folder.with_name(f"{folder.name}.tmp-{uuid.uuid4().hex[:12]}")
    with suppress(FileNotFoundError, NotADirectoryError):
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def _remove_stale(cache: Path) -> None:
    """What makers that were killed have left."""
    for path in cache.glob("table-v*.tmp-*"):
        with suppress(OSError):
            newest = max(one.stat().st_mtime for one in (path, *path.iterdir()))
            if time.time() - newest > STALE_SECONDS:
                shutil.rmtree(path)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_table(shards: Sequence[TableShard], folder: Path) -> Table:
    """A committed table; any error where there is none or it is damaged."""
    named = json.loads((folder / "table.json").read_text())
    if named.pop("digest") != storage.digest_json(named):
        raise ValueError(f"{folder}: table.json does not have what was written")
    columns = {name: Column(folder / f"{name}.npy", dtype) for name, dtype in COLUMNS.items()}
    counts = {len(columns[name]) for name in ("rows", "sources", "subsets")}
    if counts != {named["first"][-1]} or len(named["first"]) != len(shards) + 1:
        raise ValueError(f"{folder}: columns of {counts} samples in {len(named['first'])} shards")
    return Table(
        shards=shards,
        first=np.array(named["first"], np.int64),
        subset_names=named["subset_names"],
        shapes=[tuple(one) for one in named["shapes"]],
        **columns,
    )
