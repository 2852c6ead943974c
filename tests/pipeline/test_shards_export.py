"""What `avdata export` writes, read as each format's reader reads it.

benchmarks/shard_readers.py has the readers themselves do it, in an environment of their own.
"""

import hashlib
import itertools
import json
import sqlite3
import struct
import tarfile
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from avdata.errors import UsageError
from avdata.pipeline.shards.dataset import Dataset, open_dataset
from avdata.pipeline.shards.exports import FORMATS, export
from tests.trainer.shards import write_shards


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return write_shards(tmp_path / "shards")


def tars(dataset: Dataset) -> list[Path]:
    return [dataset.root / f"{shard['name']}.tar" for shard in dataset.shards]


def members(path: Path) -> dict[str, bytes]:
    """Of one tar, by the standard library."""
    found: dict[str, bytes] = {}
    with tarfile.open(path) as tar:
        for one in tar:
            file = tar.extractfile(one)
            assert file is not None
            found[one.name] = file.read()
    return found


def everything(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_adds_files_changes_none_and_is_the_same_again(
    dataset: Dataset, name: str
) -> None:
    before = everything(dataset.root)
    written = export(dataset, name)
    after = everything(dataset.root)
    assert {str(path.relative_to(dataset.root)) for path in written} == set(after) - set(before)
    assert {path: after[path] for path in before} == before
    assert export(open_dataset(dataset.root), name) == written
    assert everything(dataset.root) == after


@pytest.mark.parametrize("name", FORMATS)
def test_exports_go_when_the_shards_are_others(dataset: Dataset, name: str) -> None:
    """They would point into the middle of other members."""
    export(dataset, name)
    write_shards(dataset.root, num_sources=3)
    fresh = write_shards(dataset.root.with_name("fresh"), num_sources=3)
    left, wanted = everything(dataset.root), everything(fresh.root)
    assert set(left) - set(wanted) <= {".nv-meta/dataset.yaml"}
    assert {path: left[path] for path in wanted} == wanted


def test_an_unknown_format_is_named_with_those_that_are_known(dataset: Dataset) -> None:
    with pytest.raises(UsageError, match=r"mds: unknown; known: wids, energon, dali, webshart"):
        export(dataset, "mds")


def test_wids_lists_each_split_with_its_tars_and_their_sizes(dataset: Dataset) -> None:
    for path, split in zip(export(dataset, "wids"), ("train", "val"), strict=True):
        said = json.loads(path.read_text())
        assert said["wids_version"] == 1
        for shard in said["shardlist"]:
            tar = path.parent / shard["url"]
            assert f"/{split}-" in shard["url"]
            assert shard["filesize"] == tar.stat().st_size
            assert shard["nsamples"] == len({name.split(".")[0] for name in members(tar)})
        assert sum(one["nsamples"] for one in said["shardlist"]) == len(dataset.samples(split))


def test_wids_itself_reads_every_member(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wids = pytest.importorskip("wids", reason="wids is not installed")
    monkeypatch.setenv("WIDS_CACHE", str(tmp_path / "cache"))
    wanted = {name: data for tar in tars(dataset) for name, data in members(tar).items()}
    found: dict[str, bytes] = {}
    for path in export(dataset, "wids"):
        read = wids.ShardListDataset(str(path), localname=lambda url: url, transformations=[])
        for number in reversed(range(len(read))):
            sample = read[number]
            found |= {
                sample["__key__"] + name: file.read()
                for name, file in sample.items()
                if name.startswith(".")
            }
        read.close()
    assert found == wanted


def test_dali_lines_lead_to_the_bytes_of_each_member(dataset: Dataset) -> None:
    for path, tar in zip(export(dataset, "dali"), tars(dataset), strict=True):
        head, *lines = path.read_text().splitlines()
        assert head == f"v1.2 {len(lines)}"
        data, wanted = tar.read_bytes(), members(tar)
        for line in lines:
            words = line.split(" ")
            for k in range(0, len(words), 4):
                extension, offset, length, name = words[k : k + 4]
                assert name.split(".", 1)[1] == extension
                assert data[int(offset) :][: int(length)] == wanted.pop(name)
        assert wanted == {}


def test_webshart_entries_lead_to_the_bytes_of_each_member(dataset: Dataset) -> None:
    for path, tar in zip(export(dataset, "webshart"), tars(dataset), strict=True):
        assert path.stem == tar.stem
        said, data = json.loads(path.read_text()), tar.read_bytes()
        assert said["filesize"] == len(data)
        found = {
            name: data[place["offset"] :][: place["size"]] for name, place in said["files"].items()
        }
        assert found == members(tar)


def test_energon_offsets_cut_each_tar_into_its_samples(dataset: Dataset, tmp_path: Path) -> None:
    export(dataset, "energon")
    for tar in tars(dataset):
        index = tar.with_suffix(".tar.idx").read_bytes()
        offsets = struct.unpack(f"{len(index) // 8}Q", index)
        data = tar.read_bytes()
        found: dict[str, bytes] = {}
        for begin, end in itertools.pairwise(offsets):
            piece = tmp_path / "piece.tar"
            piece.write_bytes(data[begin:end] + bytes(1024))
            sample = members(piece)
            assert len({name.split(".")[0] for name in sample}) == 1
            found |= sample
        assert found == members(tar)
        assert not data[offsets[-1] :].strip(b"\0")


def test_energon_tables_lead_to_every_member_by_key(dataset: Dataset) -> None:
    export(dataset, "energon")
    meta = dataset.root / ".nv-meta"
    listed = list(json.loads((meta / ".info.json").read_text())["shard_counts"])
    query = (
        "SELECT sample_key || '.' || part_name, tar_file_id, content_byte_offset, content_byte_size"
        " FROM sample_parts JOIN samples USING (tar_file_id, sample_index)"
    )
    with closing(sqlite3.connect(meta / "index.sqlite")) as database:
        parts = database.execute(query).fetchall()
    found = {
        name: (dataset.root / listed[tar]).read_bytes()[offset:][:size]
        for name, tar, offset, size in parts
    }
    assert found == {name: data for tar in tars(dataset) for name, data in members(tar).items()}


def test_energon_has_the_splits_and_counts_and_keeps_your_loader(dataset: Dataset) -> None:
    mine = dataset.root / ".nv-meta" / "dataset.yaml"
    mine.parent.mkdir()
    mine.write_text("__module__: mine\n")
    export(dataset, "energon")
    assert mine.read_text() == "__module__: mine\n"
    splits = yaml.safe_load((mine.parent / "split.yaml").read_text())["split_parts"]
    counts = json.loads((mine.parent / ".info.json").read_text())["shard_counts"]
    for split in ("train", "val"):
        assert sum(counts[tar] for tar in splits[split]) == len(dataset.samples(split))
    assert sorted(counts) == sorted(splits["train"] + splits["val"])
