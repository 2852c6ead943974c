"""The index beside each tar: where every member lies. Written last, it is the shard's commit."""

import dataclasses
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from avdata import storage
from avdata.errors import CorruptShard

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Member:
    """One file inside a tar."""

    offset: int
    length: int
    digest: str
    """xxh3-64 of its bytes, in hex."""
    shape: list[int]
    """Of the array; empty for JSON."""


@dataclass(frozen=True, slots=True)
class IndexedSample:
    """One sample of a shard."""

    key: str
    source: str
    subsets: list[str]
    members: dict[str, Member]


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """All of one tar."""

    tar: str
    size_bytes: int
    tar_digest: str
    plan_digest: str
    samples: list[IndexedSample]


def member_digest(data: bytes | memoryview) -> str:
    """xxh3-64 in hex."""
    return xxhash.xxh3_64_hexdigest(data)


def tar_path(root: Path, name: str) -> Path:
    """Where the tar of a shard lies."""
    return root / f"{name}.tar"


def index_path(root: Path, name: str) -> Path:
    """Where its index lies."""
    return root / f"{name}.index.json"


def write_index(path: Path, index: ShardIndex) -> None:
    """Commits the index."""
    storage.write_json(path, {"format": FORMAT, **dataclasses.asdict(index)})


def read_index(path: Path) -> ShardIndex:
    """CorruptShard when it is missing or not an index of this format."""
    try:
        plain = json.loads(path.read_text())
        if plain.pop("format") != FORMAT:
            raise CorruptShard(f"{path}: an index of another format; encode again")
        return _from_plain(plain)
    except FileNotFoundError:
        raise CorruptShard(f"{path}: missing; run `avdata encode` again") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptShard(f"{path}: not a shard index ({error}); encode again") from error


def tar_members(path: Path) -> list[tuple[str, int, int]]:
    """(name, offset, length) of every file in a tar, in its order."""
    try:
        with tarfile.open(path, "r:") as tar:
            return [(one.name, one.offset_data, one.size) for one in tar if one.isfile()]
    except (tarfile.TarError, OSError) as error:
        raise CorruptShard(f"{path}: not a whole tar ({error}); encode again") from error


def _from_plain(plain: dict[str, Any]) -> ShardIndex:
    samples = [
        IndexedSample(
            key=one["key"],
            source=one["source"],
            subsets=one["subsets"],
            members={name: Member(**member) for name, member in one["members"].items()},
        )
        for one in plain.pop("samples")
    ]
    return ShardIndex(samples=samples, **plain)
