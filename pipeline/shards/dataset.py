"""A folder of shards opened for reading: every sample is a few range reads."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avdata import storage
from avdata.encoders.spec import ClipShape, Specs
from avdata.errors import CorruptShard, RunError, UsageError
from avdata.pipeline.shards.ahead import ahead
from avdata.pipeline.shards.index import (
    FORMAT,
    Member,
    ShardIndex,
    index_path,
    member_digest,
    read_index,
    require_name,
)
from avdata.pipeline.shards.npy import read_npy
from avdata.pipeline.shards.sample import ARRAYS, EncodedSample
from avdata.pipeline.shards.table import Table

THREADS = 16
"""That read indices at once: on S3 each costs a wait."""


@dataclass(frozen=True, slots=True)
class SampleEntry:
    """Where one sample lies."""

    key: str
    source: str
    subsets: list[str]
    bucket: str
    tar: str
    """Relative to the dataset's root."""
    members: dict[str, Member]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Shards of one selection under one set of encoders."""

    root: Path
    specs: Specs
    clip: ClipShape
    """Of the first bucket."""
    buckets: dict[str, ClipShape]
    digest: str
    """Of specs, clip shapes and all indices: of what is trained on, not of how it came to be."""
    provenance: dict[str, Any]
    shards: list[dict[str, Any]]
    failed: dict[str, list[dict[str, str]]]
    """By shard, also by those that came out empty and are not listed: `FailedClip`s."""
    encoding_digest: str = ""
    """Of clip shape and encoders, where dataset.json has it once for all shards."""

    @property
    def num_failed(self) -> int:
        """Clips that were planned and could not be decoded."""
        return sum(map(len, self.failed.values()))

    def encoding_of(self, shard: dict[str, Any]) -> str:
        """What the index of a listed shard must repeat."""
        digest: str = shard.get("encoding_digest", self.encoding_digest)
        return digest

    def indices(self) -> Iterator[tuple[dict[str, Any], ShardIndex]]:
        """Each listed shard with its index, in the order of the list; see `read_index`, and
        RunError for one that cannot be read.
        """
        paths = [index_path(self.root, shard["name"]) for shard in self.shards]
        # No more of them than that: an index takes 2 KB of memory a sample.
        with ahead(_index, paths, 2 * THREADS, THREADS) as indices:
            yield from zip(self.shards, indices, strict=True)

    def samples(self, split: str) -> list[SampleEntry]:
        """Every sample of a split, in the order of the plan."""
        return [
            SampleEntry(
                one.key,
                one.source,
                one.subsets,
                shard["bucket"],
                f"{shard['name']}.tar",
                one.members,
            )
            for shard, index in self.indices()
            if shard["split"] == split
            for one in index.samples
        ]


def entry_of(table: Table, row: int) -> SampleEntry:
    """Where the sample of a row lies."""
    one, shard = table.sample(row), table.shard_of(row)
    tar = f"{shard.name}.tar"
    return SampleEntry(one.key, one.source, one.subsets, shard.bucket, tar, one.members)


def open_dataset(root: Path) -> Dataset:
    """UsageError where there is no dataset; CorruptShard when an index is not the one listed."""
    dataset = describe_dataset(root)
    require_indices(dataset)
    return dataset


def describe_dataset(root: Path) -> Dataset:
    """What dataset.json says, at once for any number of shards; no index is looked at."""
    file = root / "dataset.json"
    try:
        plain = storage.read_json(file)
    except FileNotFoundError:
        what = "no dataset.json in this folder" if root.is_dir() else "no such folder"
        way_out = f"make shards with `avdata encode DIR --out {root}`"
        raise UsageError(f"{root}: {what}; {way_out}") from None
    if plain.get("format") != FORMAT:
        raise CorruptShard(f"{file}: format {plain.get('format')}, this avdata reads {FORMAT}")
    for shard in plain["shards"]:
        require_name(shard["name"], file)
    clip = ClipShape(**plain["clip"])
    buckets = {name: ClipShape(**one) for name, one in plain.get("buckets", {}).items()}
    return Dataset(
        root=root,
        specs=Specs.from_plain(plain["specs"]),
        clip=clip,
        buckets=buckets or {shard["bucket"]: clip for shard in plain["shards"]},
        digest=storage.digest_json([plain["specs"], plain["clip"], plain["shards"]]),
        provenance=plain["provenance"],
        shards=plain["shards"],
        failed=plain.get("failed", {}),
        encoding_digest=plain.get("encoding_digest", ""),
    )


def require_indices(dataset: Dataset) -> None:
    """CorruptShard when an index is not the one listed; RunError when it cannot be read."""
    paths = [index_path(dataset.root, shard["name"]) for shard in dataset.shards]
    with ahead(digest, paths, 2 * THREADS, THREADS) as digests:
        for shard, path, found in zip(dataset.shards, paths, digests, strict=True):
            if found != shard["index_digest"]:
                raise CorruptShard(
                    f"{path}: missing or not the one listed; run `avdata encode` again, or make it "
                    "from its tar with `avdata verify --rebuild`"
                )


def digest(path: Path) -> str | None:
    """Of a file's bytes; None where there is none; RunError where it cannot be read."""
    try:
        with _named(path):
            return storage.digest_file(path)
    except FileNotFoundError:
        return None


def _index(path: Path) -> ShardIndex:
    with _named(path):
        return read_index(path)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What is raised for a local file that cannot be read says which it is."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RunError(
            f"{path}: cannot be read ({error.strerror or error}); mend that and start again"
        ) from error


def read_members(root: Path, entry: SampleEntry, names: Sequence[str]) -> dict[str, bytes]:
    """The bytes of some members, by one read of all that lies between the first and the last of
    them; CorruptShard when they are not those that were written.
    """
    path = root / entry.tar
    places = [entry.members[name] for name in names]
    first = min((one.offset for one in places), default=0)
    end = max((one.offset + one.length for one in places), default=0)
    try:
        data = memoryview(storage.read_range(path, first, end - first))
    except FileNotFoundError:
        raise CorruptShard(f"{path}: missing; run `avdata encode` again") from None
    found = {}
    for name, one in zip(names, places, strict=True):
        part = data[one.offset - first : one.offset - first + one.length]
        if member_digest(part) != one.digest:
            raise CorruptShard(
                f"{path}: {entry.key}.{name} does not have the bytes that were written; "
                "delete the shard and run `avdata encode` again"
            )
        found[name] = bytes(part)
    return found


def read_sample(root: Path, entry: SampleEntry) -> EncodedSample:
    """The whole sample."""
    data = read_members(root, entry, [*(f"{name}.npy" for name in ARRAYS), "json"])
    arrays = {name: read_npy(data[f"{name}.npy"]) for name in ARRAYS}
    meta = json.loads(data["json"])
    return EncodedSample(entry.key, entry.source, entry.subsets, meta=meta, **arrays)
