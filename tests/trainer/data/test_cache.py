"""Copies of ranges on a local disk."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from avdata.errors import UsageError
from avdata.pipeline.shards.dataset import Dataset
from avdata.trainer.data.cache import RangeCache
from avdata.trainer.data.config import ReadConfig
from tests.trainer.data.loaders import a_loader, epoch, same, write


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return write(tmp_path / "shards")


@pytest.fixture
def cached(tmp_path: Path) -> ReadConfig:
    return ReadConfig(threads=2, max_bad_samples=0, cache=str(tmp_path / "cache"), cache_gib=1)


def copies(read: ReadConfig) -> list[Path]:
    assert read.cache is not None
    return files(Path(read.cache))


def files(folder: Path) -> list[Path]:
    """Copies, also those under way."""
    return [path for path in folder.rglob("*") if path.is_file() and path.name != "bytes"]


def test_a_cache_gives_the_same_batches_without_the_store(
    dataset: Dataset, cached: ReadConfig
) -> None:
    first = a_loader(dataset.root, read=cached)
    steps = len(epoch(first))
    whole = list(first.batches(0, steps))
    for tar in Path(dataset.root).glob("*/train-*.tar"):
        tar.unlink()
    second = a_loader(dataset.root, read=cached)
    assert all(map(same, whole, second.batches(0, steps)))
    assert second.metrics()["cache_hits"] == second.metrics()["samples"]


def test_a_damaged_copy_is_fetched_again(dataset: Dataset, cached: ReadConfig) -> None:
    whole = list(a_loader(dataset.root, read=cached).batches(0, 3))
    for number, path in enumerate(copies(cached)):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data if number % 2 else data[:-9])
    again = a_loader(dataset.root, read=cached)
    assert all(map(same, whole, again.batches(0, 3)))
    assert again.metrics()["cache_misses"] >= len(copies(cached))
    third = a_loader(dataset.root, read=cached)
    assert all(map(same, whole, third.batches(0, 3)))
    assert third.metrics()["cache_misses"] == 0


def test_a_cache_keeps_to_its_size_and_what_was_used_last(tmp_path: Path) -> None:
    size = 1000
    cache = RangeCache(tmp_path / "c", 20 * size, "digest")
    data = [memoryview(bytearray([k]) * size) for k in range(64)]
    for k, one in enumerate(data):
        cache.put("tar", k * size, [one])
        out = memoryview(bytearray(size))
        assert cache.read_into("tar", k * size, [out])
        assert out == one
        assert sum(path.stat().st_size for path in files(tmp_path / "c")) <= 20 * size
    out = memoryview(bytearray(size))
    assert not cache.read_into("tar", 0, [out])
    assert not RangeCache(tmp_path / "c", size, "other").read_into("tar", 63 * size, [out])


def test_a_copy_that_was_used_outlives_those_that_were_not(tmp_path: Path) -> None:
    size, room = 1000, 18
    cache = RangeCache(tmp_path / "c", 20 * size, "digest")
    for k in range(room):
        cache.put("tar", k * size, [memoryview(bytes(size))])
        for path in files(tmp_path / "c"):  # Long ago, in this order.
            os.utime(path, (path.stat().st_mtime - 1000,) * 2)

    def kept(k: int) -> bool:
        return cache.read_into("tar", k * size, [memoryview(bytearray(size))])

    assert kept(0)
    for k in range(room, room + 7):
        cache.put("tar", k * size, [memoryview(bytes(size))])
    assert kept(0)
    assert not any(map(kept, range(1, 6)))


def test_a_cache_that_cannot_be_is_one_line(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    read = ReadConfig(cache=str(tmp_path / "file" / "cache"))
    with pytest.raises(UsageError, match=r"data\.read\.cache = "):
        a_loader(dataset.root, read=read)


def test_what_is_not_its_own_stays_in_the_folder_that_it_was_given(tmp_path: Path) -> None:
    folder, size = tmp_path / "c", 1000
    foreign = [folder / "en" / "thesis.tar", folder / "ranges-v1" / "ab" / "mine"]
    foreign += [folder / "ab" / ("0" * 32), folder / "ranges-v1" / "ab" / ("0" * 32) / "file"]
    for path in foreign:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(20 * size))
        os.utime(path, (1, 1))
    cache = RangeCache(folder, 4 * size, "digest")
    for k in range(32):
        cache.put("tar", k * size, [memoryview(bytes(size))])
    assert all(path.stat().st_size == 20 * size for path in foreign)
    own = {*files(folder)} - {*foreign}
    assert 0 < sum(path.stat().st_size for path in own) <= 4 * size


def test_a_range_that_no_cache_of_its_size_holds_takes_no_others_place(tmp_path: Path) -> None:
    cache = RangeCache(tmp_path, 4000, "digest")
    for k in range(4):
        cache.put("tar", k * 1000, [memoryview(bytes(1000))])
    whole = files(tmp_path)
    cache.put("tar", 0, [memoryview(bytes(2000)), memoryview(bytes(2001))])
    assert files(tmp_path) == whole
    assert len(whole) > 2


@pytest.mark.parametrize("processes", [1, 16])
def test_several_processes_keep_to_one_size(tmp_path: Path, processes: int) -> None:
    """Also those that started when it was full of others' copies."""
    size, room = 1000, 64
    caches = [RangeCache(tmp_path, room * size, "digest") for _ in range(processes)]
    most = 0
    for k in range(3 * room):
        caches[k % processes].put("tar", k * size, [memoryview(bytes(size))])
        if k % 7 == 0:
            most = max(most, len(files(tmp_path)))
    assert room * 0.9 < most <= room
    assert len(files(tmp_path)) > room * 0.9  # And no more is removed than there need be.


def test_what_is_being_written_counts_and_is_removed_once_its_writer_is_dead(
    tmp_path: Path,
) -> None:
    size, room = 1000, 10
    cache = RangeCache(tmp_path, room * size, "digest")
    cache.put("tar", 0, [memoryview(bytes(size))])
    (one,) = files(tmp_path)
    left = [one.with_name(f"{k:032x}.tmp-{k:012x}") for k in range(8)]
    for path in left:
        path.write_bytes(bytes(size))
    (one.parent.parent / "bytes").unlink()  # Lost: they are counted again.
    for k in range(1, 9):
        cache.put("tar", k * size, [memoryview(bytes(size))])
        assert len(files(tmp_path)) <= room
    assert all(map(Path.exists, left))
    for path in left:
        os.utime(path, (1, 1))
    for k in range(9, 29):
        cache.put("tar", k * size, [memoryview(bytes(size))])
    assert not any(map(Path.exists, left))
    assert len(files(tmp_path)) > room - 2


def a_folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_file_above(path: Path) -> None:
    path.unlink()
    path.parent.rmdir()
    path.parent.write_bytes(b"")


def a_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


@pytest.mark.parametrize("spoil", [a_folder_instead, a_file_above, a_loop])
def test_a_copy_that_cannot_be_read_is_none(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    cache, data = RangeCache(tmp_path, 4000, "digest"), [memoryview(bytearray(1000))]
    cache.put("tar", 0, data)
    spoil(files(tmp_path)[0])
    assert not cache.read_into("tar", 0, data)
    for k in range(9):
        cache.put("tar", k * 1000, data)
    assert cache.read_into("tar", 8000, data)


def test_a_copy_of_another_user_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, data = RangeCache(tmp_path, 4000, "digest"), [memoryview(bytearray(1000))]
    cache.put("tar", 0, data)

    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refused)
    assert cache.read_into("tar", 0, data)
