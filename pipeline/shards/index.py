"""The index beside each tar: where every member lies. Written last, it is the shard's commit."""

import dataclasses
import json
import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from avdata import storage
from avdata.errors import CorruptShard

FORMAT = 1
_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


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
    round_trip: dict[str, float | None] | None = None
    """What decoding it back gave (`quality.RoundTrip`), where that was measured."""


@dataclass(frozen=True, slots=True)
class FailedClip:
    """A planned clip that is not in its shard: decoding it failed, though its source is whole."""

    key: str
    stage: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """All of one tar."""

    tar: str
    size_bytes: int
    tar_digest: str
    plan_digest: str
    samples: list[IndexedSample]
    encoding_digest: str = ""
    """Of the clip shape and the encoders; the same in every shard of a bucket."""
    failed: list[FailedClip] = field(default_factory=list)


def member_digest(data: bytes | memoryview) -> str:
    """xxh3-64 in hex."""
    return xxhash.xxh3_64_hexdigest(data)


def tar_path(root: Path, name: str) -> Path:
    """Where the tar of a shard lies."""
    return root / f"{name}.tar"


def index_path(root: Path, name: str) -> Path:
    """Where its index lies."""
    return root / f"{name}.index.json"


def require_name(name: str, where: Path) -> None:
    """CorruptShard unless it is BUCKET/FILE, which leads out of no folder."""
    if not _NAME.fullmatch(name):
        raise CorruptShard(f"{where}: {name!r} is no name of a shard")


def write_index(path: Path, index: ShardIndex) -> None:
    """Commits the index."""
    storage.write_json(path, {"format": FORMAT, **dataclasses.asdict(index)})


def read_index(path: Path) -> ShardIndex:
    """CorruptShard when it is missing or not an index of this format."""
    try:
        with storage.reaching(path):
            plain = json.loads(path.read_bytes())
        if plain.pop("format") != FORMAT:
            raise CorruptShard(f"{path}: an index of another format; encode again")
        return _from_plain(plain)
    except FileNotFoundError:
        raise CorruptShard(f"{path}: missing; run `avdata encode` again") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptShard(f"{path}: not a shard index ({error}); encode again") from error


def tar_members(path: Path) -> list[tuple[str, int, int]]:
    """(name, offset, length) of everything in a tar, links and folders too, in its order."""
    try:
        with tarfile.open(path, "r:") as tar:
            return [(one.name, one.offset_data, one.size) for one in tar]
    except (tarfile.TarError, OSError) as error:
        raise CorruptShard(f"{path}: not a whole tar ({error}); encode again") from error


def _from_plain(plain: dict[str, Any]) -> ShardIndex:
    samples = [
        IndexedSample(
            key=one["key"],
            source=one["source"],
            subsets=one["subsets"],
            members={name: _member(name, place) for name, place in one["members"].items()},
            round_trip=one.get("round_trip"),
        )
        for one in plain.pop("samples")
    ]
    failed = [FailedClip(**one) for one in plain.pop("failed", [])]
    return ShardIndex(samples=samples, failed=failed, **plain)


def _member(name: str, plain: dict[str, Any]) -> Member:
    member = Member(**plain)
    for value in (member.offset, member.length):
        if not isinstance(value, int) or value < 0:
            raise ValueError(f"{name} at {value!r}")
    return member
