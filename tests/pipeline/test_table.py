import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from avdata.errors import CorruptShard, UsageError
from avdata.pipeline.shards.dataset import Dataset, describe_dataset
from avdata.pipeline.shards.index import index_path
from avdata.pipeline.shards.open_table import open_table
from avdata.pipeline.shards.table import table_folder
from tests.trainer.shards import write_shards


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setenv("AVDATA_CACHE", str(tmp_path / "cache"))
    return write_shards(tmp_path / "shards")


def test_a_table_holds_what_the_indices_hold(dataset: Dataset) -> None:
    for _ in range(2):  # Made, then mapped.
        table = open_table(dataset)
        row = 0
        for shard, index in dataset.indices():
            for sample in index.samples:
                assert table.sample(row) == sample
                assert table.shard_of(row).name == shard["name"]
                assert table.shard_of(row).split == shard["split"]
                row += 1
        assert len(table) == row


def test_it_is_opened_without_the_indices(dataset: Dataset) -> None:
    table = open_table(dataset)
    for index in Path(dataset.root).glob("*/*.index.json"):
        index.unlink()
    assert len(open_table(describe_dataset(dataset.root))) == len(table)


def test_other_indices_than_those_listed_give_no_table(dataset: Dataset) -> None:
    path = index_path(dataset.root, dataset.shards[0]["name"])
    path.write_text(path.read_text().replace("contact", "nothing"))
    with pytest.raises(CorruptShard, match="not the one listed"):
        open_table(dataset)
    assert not table_folder(dataset.digest).exists()


def test_a_killed_maker_leaves_nothing_that_stops_the_next(dataset: Dataset) -> None:
    folder = table_folder(dataset.digest)
    left = folder.with_name(folder.name + ".tmp-killed")
    left.mkdir(parents=True)
    (left / "rows.npy").write_text("half")
    assert len(open_table(dataset)) == sum(shard["num_samples"] for shard in dataset.shards)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("name", ["table.json", "rows.npy", "subsets.npy", "source_names.npy"])
@pytest.mark.parametrize("damage", [cut, empty, Path.unlink])
def test_a_damaged_table_is_made_again(
    dataset: Dataset, damage: Callable[[Path], None], name: str
) -> None:
    whole = open_table(dataset)
    samples = [whole.sample(row) for row in range(len(whole))]
    folder = table_folder(dataset.digest)
    damage(folder / name)
    again = open_table(dataset)
    assert [again.sample(row) for row in range(len(again))] == samples
    assert list(folder.parent.iterdir()) == [folder]


def test_a_table_of_other_shards_is_made_again(dataset: Dataset) -> None:
    count = len(open_table(dataset))
    file = table_folder(dataset.digest) / "table.json"
    named = json.loads(file.read_text())
    named["first"][-1] -= 1
    file.write_text(json.dumps(named))
    assert len(open_table(dataset)) == count


def test_what_a_killed_maker_left_is_removed_once_it_is_old(dataset: Dataset) -> None:
    folder = table_folder(dataset.digest)
    old, young = (folder.with_name(f"{folder.name}.tmp-{name}") for name in ("old", "young"))
    for left in (old, young):
        left.mkdir(parents=True)
        (left / "rows.npy").write_text("half")
    for path in (old / "rows.npy", old):
        os.utime(path, (0, 0))
    open_table(dataset)
    assert not old.exists()
    assert young.exists()


def test_a_folder_that_cannot_be_written_is_named_with_the_way_out(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AVDATA_CACHE", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="name a folder in AVDATA_CACHE"):
        open_table(dataset)
