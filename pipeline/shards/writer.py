"""Writes planned shards in two phases: the tar under its final name, then its index.

Same plan, same bytes, on every machine: fixed order, owner and time. A tar without its index is
an unfinished shard and is written again; shards that no plan names any more are removed last.
"""

import contextlib
import dataclasses
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import webdataset

from avdata import storage
from avdata.encoders.spec import Specs
from avdata.errors import CorruptShard, RunError, YieldCollapsed
from avdata.pipeline.shards.dataset import THREADS
from avdata.pipeline.shards.exports import remove_exports
from avdata.pipeline.shards.failures import require_decoded, tried_again, worded
from avdata.pipeline.shards.index import (
    FORMAT,
    FailedClip,
    IndexedSample,
    Member,
    ShardIndex,
    index_path,
    member_digest,
    read_index,
    tar_members,
    tar_path,
    write_index,
)
from avdata.pipeline.shards.plan import ShardPlan
from avdata.pipeline.shards.sample import ARRAYS, EncodedSample, to_members
from avdata.storage import below

INDICES = "*/*.index.json"


def is_done(root: Path, plan: ShardPlan, retry_failed: bool = False) -> bool:
    """Whether this very shard has been committed, its tar is still there, and none of its clips is
    to be tried again.
    """
    index = _finished(root, plan)
    return index is not None and not tried_again(index.failed, retry_failed)


def _finished(root: Path, plan: ShardPlan) -> ShardIndex | None:
    """The index of this very shard, whatever failed in it."""
    tar = tar_path(root, plan.name)
    try:
        index = read_index(index_path(root, plan.name))
        with storage.reaching(tar):
            size = tar.stat().st_size
    except (CorruptShard, FileNotFoundError):
        return None
    same = index.plan_digest == plan.digest and index.size_bytes == size
    return index if same else None


def write_shard(
    root: Path, plan: ShardPlan, samples: Iterable[EncodedSample | FailedClip]
) -> ShardIndex:
    """Commits one shard; `samples` are the plan's clips, each in the plan's order or failed."""
    tar, index = tar_path(root, plan.name), index_path(root, plan.name)
    with storage.reaching(index):
        index.unlink(missing_ok=True)
        remove_exports(root, plan.name)
    samples_written: list[IndexedSample] = []
    failed: dict[str, FailedClip] = {}
    with storage.committed(tar) as temporary:
        options = {"mtime": 0, "user": "avdata", "group": "avdata", "encoder": False}
        with webdataset.TarWriter(str(temporary), **options) as out:
            for sample in samples:
                if isinstance(sample, FailedClip):
                    failed[sample.key] = sample
                    continue
                members = _members(tar, sample)
                out.write({"__key__": sample.key, **members})
                samples_written.append(_indexed(sample, members))
        offsets = {name: offset for name, offset, _ in tar_members(temporary)}
        digest, size = storage.digest_file(temporary), temporary.stat().st_size
    wanted = [clip.clip_id for clip in plan.clips if clip.clip_id not in failed]
    if [sample.key for sample in samples_written] != wanted:
        raise RunError(f"{tar}: {len(samples_written)} samples for {len(wanted)} clips")
    made = ShardIndex(
        tar=tar.name,
        size_bytes=size,
        tar_digest=digest,
        plan_digest=plan.digest,
        samples=[_placed(sample, offsets) for sample in samples_written],
        encoding_digest=plan.encoding_digest,
        failed=[failed[clip.clip_id] for clip in plan.clips if clip.clip_id in failed],
    )
    write_index(index, made)
    return made


def _members(tar: Path, sample: EncodedSample) -> dict[str, bytes]:
    try:
        return to_members(sample)
    except RunError as error:
        way = f"to leave it out, `avdata select` with the rule `broken: clip_id == '{sample.key}'`"
        raise RunError(f"{tar}: {error}; {way}") from error


def write_dataset(
    root: Path,
    specs: Specs,
    plans: Sequence[ShardPlan],
    provenance: dict[str, Any],
    max_failed_share: float = 1.0,
) -> None:
    """Commits dataset.json over finished shards, then removes shards that no plan names.

    YieldCollapsed when no clip could be decoded, RunError when too many could not.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        listed = list(pool.map(partial(_listed, root), plans))
    shards = [shard for shard, _ in listed if shard["num_samples"] > 0]
    failed = {shard["name"]: lost for shard, lost in listed if lost}
    lost = [one for some in failed.values() for one in some]
    why = worded(lost[0]["stage"], lost[0]["reason"], lost[0]["detail"]) if lost else ""
    if not shards:
        what = f"none of {len(lost)} clips could be decoded ({why}); see *.index.json"
        raise YieldCollapsed(f"{root}: {what}")
    total = len(lost) + sum(shard["num_samples"] for shard in shards)
    require_decoded(root, len(lost), total, total, max_failed_share, why)
    shapes = {plan.bucket: dataclasses.asdict(plan.shape) for plan in plans}
    named = {shard["bucket"] for shard in shards}
    before = _shard_names(root)
    storage.write_json(
        root / "dataset.json",
        {
            "format": FORMAT,
            "specs": dataclasses.asdict(specs),
            "clip": shapes[shards[0]["bucket"]],
            "buckets": {name: shape for name, shape in shapes.items() if name in named},
            "shards": shards,
            "failed": failed,
            "provenance": provenance,
        },
    )
    with storage.reaching(root):
        for name in before - {plan.name for plan in plans}:
            index_path(root, name).unlink(missing_ok=True)
            tar_path(root, name).unlink(missing_ok=True)
            remove_exports(root, name)


def _listed(root: Path, plan: ShardPlan) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What dataset.json says of a shard, and of its clips that failed."""
    index = _finished(root, plan)
    if index is None:
        raise RunError(f"{tar_path(root, plan.name)}: not encoded; run `avdata encode` again")
    shard = {
        "name": plan.name,
        "split": plan.split,
        "bucket": plan.bucket,
        "num_samples": len(index.samples),
        "size_bytes": index.size_bytes,
        "plan_digest": index.plan_digest,
        "encoding_digest": index.encoding_digest,
        "index_digest": storage.digest_file(index_path(root, plan.name)),
    }
    return shard, [dataclasses.asdict(one) for one in index.failed]


def _shard_names(root: Path) -> set[str]:
    """Those of the dataset that is replaced, and finished ones of a plan that never became one."""
    names: set[str] = set()
    with contextlib.suppress(FileNotFoundError):
        names |= {one["name"] for one in storage.read_json(root / "dataset.json")["shards"]}
    with storage.reaching(root):
        found = {below(path, root).removesuffix(".index.json") for path in root.glob(INDICES)}
    for name in found - names:
        with contextlib.suppress(CorruptShard):
            read_index(index_path(root, name))
            names.add(name)
    return names


def _indexed(sample: EncodedSample, members: dict[str, bytes]) -> IndexedSample:
    found = {
        name: Member(0, len(data), member_digest(data), _shape(sample, name))
        for name, data in members.items()
    }
    # In the order of the sample's JSON, from which an index can be made again.
    round_trip = sample.meta.get("round_trip")
    round_trip = None if round_trip is None else dict(sorted(round_trip.items()))
    return IndexedSample(sample.key, sample.source, sample.subsets, found, round_trip)


def _placed(sample: IndexedSample, offsets: dict[str, int]) -> IndexedSample:
    placed = {
        name: dataclasses.replace(member, offset=offsets[f"{sample.key}.{name}"])
        for name, member in sample.members.items()
    }
    return dataclasses.replace(sample, members=placed)


def _shape(sample: EncodedSample, member: str) -> list[int]:
    name = member.removesuffix(".npy")
    return list(getattr(sample, name).shape) if name in ARRAYS else []
