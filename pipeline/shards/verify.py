"""Checks shards from the outside in and reports everything that is wrong, not just the first."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from avdata import storage
from avdata.errors import CorruptShard
from avdata.pipeline.shards.dataset import Dataset
from avdata.pipeline.shards.index import (
    IndexedSample,
    ShardIndex,
    index_path,
    member_digest,
    read_index,
    tar_members,
    tar_path,
)
from avdata.pipeline.shards.npy import read_npy
from avdata.pipeline.shards.sample import ARRAYS

Captions = Mapping[str, dict[str, Any] | None]
"""By `clip_id`, as `facts.said`."""
MEMBERS = {*(f"{name}.npy" for name in ARRAYS), "json"}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    shard: str
    key: str
    """Of the sample; empty when it is about the shard as a whole."""
    what: str


@dataclass(slots=True)
class VerifyReport:
    """What was looked at and what was found."""

    num_shards: int = 0
    num_samples: int = 0
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Seen:
    """Over all shards: where each clip is, and the split of each source and group."""

    shards: dict[str, str] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    captions: Captions | None = None

    def splits_apart(self, split: str, sample: IndexedSample, facts: dict[str, Any]) -> list[str]:
        """Of the sample's source and groups, those that another split has, too."""
        found = []
        for name in (sample.source, *facts.get("groups", ())):
            other = self.splits.setdefault(name, split)
            if other != split:
                what = "source" if name == sample.source else f"group {name}"
                found.append(f"its {what} is in split {other}, too")
        return found

    def other_captions(self, key: str, facts: dict[str, Any]) -> list[str]:
        """Whether a manifest has others for this clip."""
        if self.captions is None:
            return []
        if key not in self.captions:
            return ["its clip is not in the manifest"]
        same = facts.get("captions") == self.captions[key]
        return [] if same else ["json: captions are not those of its clip in the manifest"]


def verify_shards(
    dataset: Dataset, on_shard: Callable[[str], None], captions: Captions | None = None
) -> VerifyReport:
    """Reads every byte of every shard; calls `on_shard` with each shard's name when done.

    With `captions` each sample must have those of its clip.
    """
    report = VerifyReport()
    seen = _Seen(captions=captions)
    for shard in dataset.shards:
        name = shard["name"]
        samples: list[IndexedSample] = []
        try:
            index = read_index(index_path(dataset.root, name))
            samples = index.samples
            found = list(_verify_shard(dataset, shard, index, seen))
        except CorruptShard as error:
            found = [("", str(error))]
        for sample in samples:
            if sample.key in seen.shards:
                found.append((sample.key, f"the same clip is in {seen.shards[sample.key]}"))
            seen.shards.setdefault(sample.key, name)
        report.problems += [Problem(name, key, what) for key, what in found]
        report.num_shards += 1
        report.num_samples += len(samples)
        on_shard(name)
    return report


def _verify_shard(
    dataset: Dataset, shard: dict[str, Any], index: ShardIndex, seen: _Seen
) -> Iterator[tuple[str, str]]:
    """(key, what) of each problem."""
    place = tar_path(dataset.root, shard["name"])
    try:
        with storage.reaching(place):
            size = place.stat().st_size
        if storage.is_remote(place) and size > index.size_bytes:
            yield "", f"{size} bytes, the index has {index.size_bytes}: not fetched"
            return
        with storage.local_copy(place) as tar:
            yield from _verify_bytes(dataset, shard, index, tar)
            with tar.open("rb") as file:
                for sample in index.samples:
                    for what in _verify_sample(dataset, shard, sample, file, seen):
                        yield sample.key, what
    except FileNotFoundError:
        raise CorruptShard("the tar is missing") from None


def _verify_bytes(
    dataset: Dataset, shard: dict[str, Any], index: ShardIndex, tar: Path
) -> Iterator[tuple[str, str]]:
    if tar.stat().st_size != index.size_bytes:
        yield "", f"{tar.stat().st_size} bytes, the index has {index.size_bytes}"
    elif storage.digest_file(tar) != index.tar_digest:
        yield "", "bytes differ from those that were written"
    if index.encoding_digest != dataset.encoding_of(shard):
        yield "", "encoded by other encoders or for another clip shape than dataset.json says"
    if len(index.samples) != shard["num_samples"]:
        yield "", f"{len(index.samples)} samples, dataset.json has {shard['num_samples']}"
    yield from _verify_places(tar, index)


def _verify_places(tar: Path, index: ShardIndex) -> Iterator[tuple[str, str]]:
    """Whether tar and index have the same members at the same places."""
    listed = [
        (f"{sample.key}.{member}", place.offset, place.length, sample.key)
        for sample in index.samples
        for member, place in sample.members.items()
    ]
    try:
        found = tar_members(tar)
    except CorruptShard as error:
        yield "", str(error)
        return
    for member, _, _ in found:
        if "/" in member or "\\" in member or member.startswith("."):
            yield member, "a member path that leaves the folder"
    if found == [place[:3] for place in listed]:
        return
    there, named = set(found), {place[:3] for place in listed}
    for *place, key in listed:
        if tuple(place) not in there:
            yield key, f"{place[0]}: not in the tar where the index has it"
    for member, offset, length in found:
        if (member, offset, length) not in named:
            yield member, "in the tar and not in the index"
    if there == named:
        yield "", "the tar's members are in another order than those of the index"


def _verify_sample(
    dataset: Dataset, shard: dict[str, Any], sample: IndexedSample, file: BinaryIO, seen: _Seen
) -> Iterator[str]:
    for member, place in sample.members.items():
        file.seek(place.offset)
        data = file.read(place.length)
        if len(data) < place.length:
            yield f"{member}: the tar ends before it does"
        elif member_digest(data) != place.digest:
            yield f"{member}: bytes differ from those that were written"
        elif member == "json":
            yield from _verify_facts(shard["split"], sample, data, seen)
        elif member in MEMBERS:
            yield from _verify_array(dataset, shard["bucket"], member, data)
        else:
            yield f"{member}: no member of a sample"
    for name in sorted(MEMBERS - set(sample.members)):
        yield f"{name}: missing"


def _verify_facts(split: str, sample: IndexedSample, data: bytes, seen: _Seen) -> Iterator[str]:
    try:
        facts = json.loads(data)
        said = [
            facts["clip_id"],
            facts.get("source_digest", sample.source),
            facts.get("subsets", sample.subsets),
            facts.get("round_trip"),
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        yield f"json: not the facts of a clip ({error!r})"
        return
    if said[0] != sample.key:
        yield "json: the facts are those of another clip"
    elif said[1:] != [sample.source, sample.subsets, sample.round_trip]:
        yield "json: source, subsets or round trip are not those of the index"
    yield from seen.splits_apart(split, sample, facts)
    yield from seen.other_captions(sample.key, facts)


def _verify_array(dataset: Dataset, bucket: str, member: str, data: bytes) -> Iterator[str]:
    try:
        array = read_npy(data)
    except (ValueError, EOFError) as error:
        yield f"{member}: not an array ({error})"
        return
    specs, clip, role = (
        dataset.specs,
        dataset.buckets.get(bucket, dataset.clip),
        member.removesuffix(".npy"),
    )
    if array.dtype != np.float16:
        yield f"{member}: {array.dtype}, not float16"
    elif not np.isfinite(array).all():
        yield f"{member}: {np.count_nonzero(~np.isfinite(array))} values that are not finite"
    given: tuple[int, ...]
    if role == "video":
        given = specs.video.latent_shape(clip.num_frames, clip.height, clip.width)
    elif role == "audio":
        given = specs.audio.channels, specs.audio.latent_length(clip.num_samples)
    else:
        text, num_tokens = getattr(specs, role), array.shape[0] if array.ndim else 0
        given = min(max(1, num_tokens), text.max_tokens), text.width
    if array.shape != given:
        spec = getattr(specs, role)
        yield f"{member}: shape {array.shape}, the encoder {spec.name} gives {given}"
