import dataclasses
import errno
import json
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from avdata.errors import CorruptShard, RunError, UsageError
from avdata.pipeline.shards import dataset as described
from avdata.pipeline.shards import open_table as opening
from avdata.pipeline.shards.browse import Shards, open_shards
from avdata.pipeline.shards.dataset import Dataset, describe_dataset, require_indices
from avdata.pipeline.shards.index import ShardIndex, index_path, read_index
from avdata.pipeline.shards.open_table import open_table
from avdata.pipeline.shards.table import seal_table, table_folder
from tests.trainer.shards import write_shards


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setenv("AVDATA_CACHE", str(tmp_path / "cache"))
    return write_shards(tmp_path / "shards")


def test_a_table_holds_what_the_indices_hold(dataset: Dataset) -> None:
    for _ in range(2):  # Made, then opened.
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


NAMES = ["table.json", "rows.npy", "subsets.npy", "source_names.npy", "rows.digests.npy"]


@pytest.mark.parametrize("name", NAMES)
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
    assert {*folder.parent.iterdir()} == {folder, folder.with_name(f"{folder.name}.lock")}


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def looked_up(shards: Shards) -> list[object]:
    return [shards.entry(number) for number in range(len(shards))]


@pytest.mark.parametrize("damage", [flipped, cut])
@pytest.mark.parametrize("name", ["rows.npy", "subsets.npy", "sources.npy", "source_names.npy"])
def test_a_part_of_a_table_that_changed_is_not_used_nor_blamed_on_the_shards(
    dataset: Dataset, damage: Callable[[Path], None], name: str
) -> None:
    whole = looked_up(open_shards(dataset.root))
    opened = open_shards(dataset.root)
    damage(table_folder(dataset.digest) / name)
    with pytest.raises(RunError, match=rf"{name}: .* the shards are not at fault.*made again") as e:
        looked_up(opened)
    assert not isinstance(e.value, CorruptShard)
    assert looked_up(open_shards(dataset.root)) == whole


@pytest.mark.parametrize(
    ("name", "was", "damage"),
    [
        ("rows.npy", b"<i8", b">i8"),
        ("rows.npy", b"'places'", b"'qlaces'"),
        ("sources.npy", b"}", b"]"),
        ("subsets.npy", b"<u8", b">u8"),
        ("subsets.digests.npy", b"<u8", b">u8"),
        ("source_names.digests.npy", b"}", b"]"),
    ],
)
def test_a_header_that_changed_makes_it_anew(
    dataset: Dataset, name: str, was: bytes, damage: bytes
) -> None:
    """No digest has it, and rows would be taken for others."""
    whole = looked_up(open_shards(dataset.root))
    path = table_folder(dataset.digest) / name
    written = path.read_bytes()
    path.write_bytes(written.replace(was, damage, 1))
    assert looked_up(open_shards(dataset.root)) == whole
    assert path.read_bytes() == written


def test_one_that_cannot_be_read_for_a_while_is_kept(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_table(dataset)
    folder = table_folder(dataset.digest)
    made = folder.stat().st_ino

    def fails(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(opening, "read_table", fails)
        with pytest.raises(RunError, match=rf"{folder}: cannot be read \(Too many open files"):
            open_table(dataset)
    open_table(dataset)
    assert folder.stat().st_ino == made


def test_an_index_that_cannot_be_read_is_named(dataset: Dataset) -> None:
    """And not the folder of the table."""
    path = index_path(dataset.root, dataset.shards[1]["name"])
    path.unlink()
    path.mkdir()
    for read in (open_table, lambda dataset: list(dataset.indices())):
        with pytest.raises(RunError, match=rf"^{path}: cannot be read \(Is a directory\)"):
            read(dataset)


def test_what_was_found_damaged_is_not_removed_where_it_was_made_again(dataset: Dataset) -> None:
    whole = looked_up(open_shards(dataset.root))
    flipped(table_folder(dataset.digest) / "rows.npy")
    one, other = open_shards(dataset.root), open_shards(dataset.root)
    with pytest.raises(RunError):
        looked_up(one)
    again = open_shards(dataset.root)
    with pytest.raises(RunError):
        looked_up(other)
    assert (table_folder(dataset.digest) / "rows.npy").exists()
    assert looked_up(again) == whole


def test_changed_text_of_a_table_makes_it_anew(dataset: Dataset) -> None:
    names = open_table(dataset).subset_names
    path = table_folder(dataset.digest) / "table.json"
    path.write_text(path.read_text().replace("contact", "contacs"))
    assert open_table(dataset).subset_names == names


def test_few_indices_are_in_memory_while_it_is_made(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, taken, most = 0, 0, 0

    def noted(path: Path) -> ShardIndex:
        nonlocal begun, most
        begun += 1
        most = max(most, begun - taken)
        return read_index(path)

    monkeypatch.setattr(described, read_index.__name__, noted)
    many = dataclasses.replace(dataset, shards=dataset.shards[:1] * 200)
    for _ in many.indices():
        time.sleep(0.001)  # The builder is slower than those who read.
        taken += 1
    assert taken == begun == 200
    assert most <= 3 * described.THREADS


def gone(path: Path) -> None:
    shutil.rmtree(path.parent)


@pytest.mark.parametrize("damage", [cut, gone])
def test_of_those_that_need_a_table_at_once_one_makes_it(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    whole = looked_up(open_shards(dataset.root))
    makers: list[Dataset] = []

    def noted(dataset: Dataset) -> None:
        makers.append(dataset)
        require_indices(dataset)

    monkeypatch.setattr(opening, require_indices.__name__, noted)
    for times in range(1, 4):
        damage(table_folder(dataset.digest) / "rows.npy")
        with ThreadPoolExecutor(8) as pool:
            opened = list(pool.map(open_shards, [dataset.root] * 8))
        assert all(looked_up(one) == whole for one in opened)
        assert len(makers) == times


def test_a_table_of_other_shards_is_made_again(dataset: Dataset) -> None:
    count = len(open_table(dataset))
    file = table_folder(dataset.digest) / "table.json"
    named = json.loads(file.read_text())
    named["first"][-1] -= 1
    del named["digest"]
    seal_table(file.parent, **named)
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
