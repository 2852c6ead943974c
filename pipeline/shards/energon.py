"""`.nv-meta/` and `NAME.tar.idx`: what `energon prepare` would make for Megatron-Energon.

    NAME.tar.idx            64-bit offsets of the first header of each sample, then the end
    .nv-meta/.info.json     number of samples a tar
    .nv-meta/split.yaml     tars a split
    .nv-meta/dataset.yaml   samples as dictionaries of decoded members (CrudeWebdataset)
    .nv-meta/index.sqlite   where each sample and each member lies, for random access
    .nv-meta/index.uuid     changes when the index does

A dataset.yaml that is there already is left alone: it is the place for a loader of your own.
"""

import json
import sqlite3
import struct
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import yaml

from avdata import storage
from avdata.pipeline.shards.dataset import Dataset
from avdata.pipeline.shards.index import IndexedSample, ShardIndex

META = ".nv-meta"
BLOCK = 512
DATASET = {"__module__": "megatron.energon", "__class__": "CrudeWebdataset"}
# Tables and the indices on them have the names by which Energon asks for them.
TABLES = (
    "CREATE TABLE samples (tar_file_id INTEGER NOT NULL, sample_key TEXT NOT NULL UNIQUE,"
    " sample_index INTEGER NOT NULL, byte_offset INTEGER, byte_size INTEGER)",
    "CREATE TABLE sample_parts (tar_file_id INTEGER, sample_index INTEGER, part_name TEXT,"
    " content_byte_offset INTEGER, content_byte_size INTEGER)",
)
INDICES = (
    "CREATE INDEX idx_samples_by_tar_and_idx ON samples (tar_file_id, sample_index)",
    "CREATE INDEX idx_sample_parts_seq"
    " ON sample_parts (tar_file_id, sample_index, content_byte_offset)",
    "CREATE INDEX idx_sample_parts_full ON sample_parts"
    " (tar_file_id, sample_index, part_name, content_byte_offset, content_byte_size)",
)


def write_energon(dataset: Dataset) -> list[Path]:
    """All of the above, .info.json last, by which Energon knows a dataset; answers the paths."""
    meta = dataset.root / META
    paths = [_write_offsets(dataset, shard["name"], index) for shard, index in dataset.indices()]
    with storage.committed(meta / "index.sqlite") as temporary:
        _write_tables(dataset, temporary)
    tars = {f"{shard['name']}.tar": shard for shard in dataset.shards}
    splits = {
        split: [tar for tar, shard in tars.items() if shard["split"] == split]
        for split in ("train", "val")
    }
    counts = {tar: shard["num_samples"] for tar, shard in tars.items()}
    files = {
        "index.uuid": str(uuid.uuid5(uuid.NAMESPACE_OID, dataset.digest)),
        "split.yaml": yaml.safe_dump({"split_parts": splits, "exclude": []}, sort_keys=False),
        "dataset.yaml": yaml.safe_dump(DATASET, sort_keys=False),
        ".info.json": json.dumps({"shard_counts": counts}, indent=2) + "\n",
    }
    for name, text in files.items():
        path = meta / name
        paths.append(path)
        if name == "dataset.yaml" and path.exists():
            continue
        with storage.committed(path) as temporary:
            temporary.write_text(text)
    return [*paths, meta / "index.sqlite"]


def _write_offsets(dataset: Dataset, name: str, index: ShardIndex) -> Path:
    path = dataset.root / f"{name}.tar.idx"
    ends = [end for _, _, end in _extents(index)]
    with storage.committed(path) as temporary:
        temporary.write_bytes(struct.pack(f"<{len(ends) + 1}Q", 0, *ends))
    return path


def _write_tables(dataset: Dataset, path: Path) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        for statement in TABLES:
            database.execute(statement)
        for tar, (_, index) in enumerate(dataset.indices()):
            for number, (sample, begin, end) in enumerate(_extents(index)):
                row = (tar, sample.key, number, begin, end - begin)
                database.execute("INSERT INTO samples VALUES (?, ?, ?, ?, ?)", row)
                database.executemany(
                    "INSERT INTO sample_parts VALUES (?, ?, ?, ?, ?)",
                    [
                        (tar, number, name, member.offset, member.length)
                        for name, member in sample.members.items()
                    ],
                )
        for statement in INDICES:
            database.execute(statement)


def _extents(index: ShardIndex) -> Iterator[tuple[IndexedSample, int, int]]:
    """Each sample with its first byte, its headers included, and the byte after its last block.

    Members follow each other without a gap, each filled up to whole blocks.
    """
    begin = 0
    for sample in index.samples:
        last = max(sample.members.values(), key=lambda member: member.offset)
        end = last.offset + -(-last.length // BLOCK) * BLOCK
        yield sample, begin, end
        begin = end
