"""Indices made again from bare tars: nothing is in an index that is not in the tar or dataset.json.

For a folder whose indices were lost or damaged, where encoding again would cost far more.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avdata import storage
from avdata.errors import CorruptShard
from avdata.pipeline.shards.dataset import digest
from avdata.pipeline.shards.index import (
    FailedClip,
    IndexedSample,
    Member,
    ShardIndex,
    index_path,
    member_digest,
    require_name,
    tar_members,
    tar_path,
    write_index,
)
from avdata.pipeline.shards.npy import read_npy


def rebuild_index(
    root: Path,
    name: str,
    plan_digest: str = "",
    encoding_digest: str = "",
    failed: Sequence[FailedClip] = (),
) -> ShardIndex:
    """The index of a tar, from its bytes; CorruptShard names the member that is no sample's.

    The digests of plan and encoding and what failed are not in the tar: dataset.json has them.
    """
    tar = tar_path(root, name)
    samples: dict[str, dict[str, Member]] = {}
    facts: dict[str, dict[str, Any]] = {}
    with storage.local_copy(tar) as copy, copy.open("rb") as file:
        for path, offset, length in tar_members(copy):
            key, _, member = path.partition(".")
            file.seek(offset)
            data = file.read(length)
            try:
                shape = list(read_npy(data).shape) if member.endswith(".npy") else []
                if member == "json":
                    facts[key] = json.loads(data)
            except (ValueError, EOFError) as error:
                raise CorruptShard(f"{tar}: {path}: {error}; encode again") from error
            place = Member(offset, length, member_digest(data), shape)
            samples.setdefault(key, {})[member] = place
        size, tar_digest = copy.stat().st_size, storage.digest_file(copy)
    return ShardIndex(
        tar=tar.name,
        size_bytes=size,
        tar_digest=tar_digest,
        plan_digest=plan_digest,
        samples=[_sample(tar, key, facts, members) for key, members in samples.items()],
        encoding_digest=encoding_digest,
        failed=list(failed),
    )


def rebuild_indices(root: Path) -> list[str]:
    """Writes the indices of a dataset that are missing or damaged; answers the shards' names.

    CorruptShard when a tar does not give the very index that dataset.json lists; that index is
    then not written.
    """
    plain, rebuilt = storage.read_json(root / "dataset.json"), []
    for shard in plain["shards"]:
        require_name(shard["name"], root / "dataset.json")
        path, wanted = index_path(root, shard["name"]), shard["index_digest"]
        if digest(path) == wanted:
            continue
        encoding = shard.get("encoding_digest", plain.get("encoding_digest", ""))
        failed = [FailedClip(**one) for one in plain.get("failed", {}).get(shard["name"], ())]
        plan = shard.get("plan_digest", "")
        index = rebuild_index(root, shard["name"], plan, encoding, failed)
        with storage.committed(path) as temporary:
            write_index(temporary, index)
            if storage.digest_file(temporary) != wanted:
                tar = tar_path(root, shard["name"])
                raise CorruptShard(f"{tar}: not the tar that was listed; run `avdata encode` again")
        rebuilt.append(shard["name"])
    return rebuilt


def _sample(
    tar: Path, key: str, facts: dict[str, dict[str, Any]], members: dict[str, Member]
) -> IndexedSample:
    try:
        said = facts[key]
        source, subsets = said["source_digest"], said["subsets"]
    except (KeyError, TypeError):
        raise CorruptShard(f"{tar}: {key}.json: no facts of a sample; encode again") from None
    return IndexedSample(key, source, subsets, members, said.get("round_trip"))
