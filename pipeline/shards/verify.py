"""Checks shards from the outside in and reports everything that is wrong, not just the first."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from avdata import storage
from avdata.errors import CorruptShard
from avdata.pipeline.shards.dataset import Dataset
from avdata.pipeline.shards.index import (
    IndexedSample,
    index_path,
    member_digest,
    read_index,
    tar_members,
    tar_path,
)
from avdata.pipeline.shards.sample import ARRAYS, read_npy


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    shard: str
    key: str
    """Empty when it is about the shard as a whole."""
    what: str


@dataclass(slots=True)
class VerifyReport:
    """What was looked at and what was found."""

    num_shards: int = 0
    num_samples: int = 0
    problems: list[Problem] = field(default_factory=list)


def verify_shards(dataset: Dataset, on_shard: Callable[[str], None]) -> VerifyReport:
    """Reads every byte of every shard; calls `on_shard` with each shard's name when done."""
    report = VerifyReport()
    seen: dict[str, str] = {}
    split_of: dict[str, str] = {}
    for shard in dataset.shards:
        name, split = shard["name"], shard["split"]
        try:
            samples = _verify_shard(dataset, name, report)
        except CorruptShard as error:
            report.problems.append(Problem(name, "", str(error)))
            samples = []
        for sample in samples:
            if seen.setdefault(sample.key, name) != name:
                what = f"the same clip is in {seen[sample.key]}"
                report.problems.append(Problem(name, sample.key, what))
            if split_of.setdefault(sample.source, split) != split:
                what = f"its source is in split {split_of[sample.source]}, too"
                report.problems.append(Problem(name, sample.key, what))
        report.num_shards += 1
        report.num_samples += len(samples)
        on_shard(name)
    return report


def _verify_shard(dataset: Dataset, name: str, report: VerifyReport) -> list[IndexedSample]:
    index, tar = read_index(index_path(dataset.root, name)), tar_path(dataset.root, name)
    if not tar.exists():
        raise CorruptShard("the tar is missing")
    if tar.stat().st_size != index.size_bytes:
        wrong = f"{tar.stat().st_size} bytes, the index has {index.size_bytes}"
        report.problems.append(Problem(name, "", wrong))
    elif storage.digest_file(tar) != index.tar_digest:
        report.problems.append(Problem(name, "", "bytes differ from those that were written"))
    listed = [
        (f"{sample.key}.{member}", place.offset, place.length)
        for sample in index.samples
        for member, place in sample.members.items()
    ]
    found = tar_members(tar)
    for member, _, _ in found:
        if "/" in member or member.startswith("."):
            report.problems.append(Problem(name, member, "a member path that leaves the folder"))
    if found != listed:
        report.problems.append(Problem(name, "", "the tar's members are not those of the index"))
    with tar.open("rb") as file:
        for sample in index.samples:
            for what in _verify_sample(dataset, sample, file.fileno(), tar):
                report.problems.append(Problem(name, sample.key, what))
    return index.samples


def _verify_sample(
    dataset: Dataset, sample: IndexedSample, descriptor: int, tar: Path
) -> list[str]:
    problems = []
    for member, place in sample.members.items():
        data = os.pread(descriptor, place.length, place.offset)
        if member_digest(data) != place.digest:
            problems.append(f"{member}: bytes differ from those that were written to {tar.name}")
        elif member == "json":
            if json.loads(data).get("clip_id") != sample.key:
                problems.append("json: the facts are those of another clip")
        else:
            problems += _verify_array(dataset, member, data)
    missing = {f"{name}.npy" for name in ARRAYS} | {"json"}
    problems += [f"{name}: missing" for name in sorted(missing - set(sample.members))]
    return problems


def _verify_array(dataset: Dataset, member: str, data: bytes) -> list[str]:
    array, specs, clip = read_npy(data), dataset.specs, dataset.clip
    role = member.removesuffix(".npy")
    problems = [] if np.isfinite(array).all() else [f"{member}: values that are not finite"]
    if role == "video":
        fits = array.shape == specs.video.latent_shape(clip.num_frames, clip.height, clip.width)
    elif role == "audio":
        length = specs.audio.latent_length(clip.num_samples)
        fits = array.shape == (specs.audio.channels, length)
    else:
        text = getattr(specs, role)
        fits = array.ndim == 2 and array.shape[1] == text.width
        fits = fits and 1 <= array.shape[0] <= text.max_tokens
    if not fits:
        problems.append(f"{member}: shape {array.shape} is not what its encoder gives")
    return problems
