"""A folder of shards opened for reading: every sample is a few range reads."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avdata import storage
from avdata.encoders.spec import ClipShape, Specs
from avdata.errors import CorruptShard, UsageError
from avdata.pipeline.shards.index import (
    FORMAT,
    Member,
    ShardIndex,
    index_path,
    member_digest,
    read_index,
    require_name,
)
from avdata.pipeline.shards.sample import ARRAYS, EncodedSample, read_npy


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
    digest: str
    """Of specs, clip shape and all indices: of what is trained on, not of how it came to be."""
    provenance: dict[str, Any]
    shards: list[dict[str, Any]]
    encoding_digest: str = ""
    """Of clip shape and encoders, which every index repeats."""

    def indices(self) -> Iterator[tuple[dict[str, Any], ShardIndex]]:
        """Each listed shard with its index, in the order of the list."""
        for shard in self.shards:
            yield shard, read_index(index_path(self.root, shard["name"]))

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


def open_dataset(root: Path) -> Dataset:
    """UsageError where there is no dataset; CorruptShard when an index is not the one listed."""
    file = root / "dataset.json"
    if not file.exists():
        what = "no dataset.json in this folder" if root.is_dir() else "no such folder"
        raise UsageError(f"{root}: {what}; make shards with `avdata encode DIR --out {root}`")
    plain = storage.read_json(file)
    if plain.get("format") != FORMAT:
        raise CorruptShard(f"{file}: format {plain.get('format')}, this avdata reads {FORMAT}")
    for shard in plain["shards"]:
        require_name(shard["name"], file)
        index = index_path(root, shard["name"])
        if not index.exists() or storage.digest_file(index) != shard["index_digest"]:
            raise CorruptShard(
                f"{index}: missing or not the one listed; run `avdata encode` again, or make it "
                "from its tar with `avdata verify --rebuild`"
            )
    return Dataset(
        root=root,
        specs=Specs.from_plain(plain["specs"]),
        clip=ClipShape(**plain["clip"]),
        digest=storage.digest_json([plain["specs"], plain["clip"], plain["shards"]]),
        provenance=plain["provenance"],
        shards=plain["shards"],
        encoding_digest=plain.get("encoding_digest", ""),
    )


def read_members(root: Path, entry: SampleEntry, names: Sequence[str]) -> dict[str, bytes]:
    """The bytes of some members, checked against their digests."""
    path = root / entry.tar
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        raise CorruptShard(f"{path}: missing; run `avdata encode` again") from None
    try:
        return {name: _read(descriptor, path, entry, name) for name in names}
    finally:
        os.close(descriptor)


def read_sample(root: Path, entry: SampleEntry) -> EncodedSample:
    """The whole sample."""
    data = read_members(root, entry, [*(f"{name}.npy" for name in ARRAYS), "json"])
    arrays = {name: read_npy(data[f"{name}.npy"]) for name in ARRAYS}
    meta = json.loads(data["json"])
    return EncodedSample(entry.key, entry.source, entry.subsets, meta=meta, **arrays)


def _read(descriptor: int, path: Path, entry: SampleEntry, name: str) -> bytes:
    member = entry.members[name]
    data = os.pread(descriptor, member.length, member.offset)
    if member_digest(data) != member.digest:
        raise CorruptShard(
            f"{path}: {entry.key}.{name} does not have the bytes that were written; "
            "delete the shard and run `avdata encode` again"
        )
    return data
