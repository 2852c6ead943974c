import errno
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fsspec.registry import _registry

from avdata.errors import CorruptShard, UsageError
from avdata.pipeline.shards import store
from avdata.pipeline.shards.retry import Attempts
from avdata.pipeline.shards.store import Transient, open_store


def test_what_reads_s3_is_named_by_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(_registry, "s3", raising=False)  # A class that was loaded before.
    with pytest.raises(UsageError, match=r"pip install 'avdata\[s3\]'"):
        open_store("s3://bucket/shards")


def test_another_scheme_is_refused() -> None:
    with pytest.raises(UsageError, match="only local paths and s3:// URIs"):
        open_store("gs://bucket/shards")


def descriptors(folder: Path) -> int:
    links = Path("/proc/self/fd").iterdir()
    return sum(link.is_symlink() and link.readlink().is_relative_to(folder) for link in links)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are counted in /proc")
def test_few_files_stay_open_and_none_of_a_store_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MOST_OPEN", 2)
    for number in range(9):
        (tmp_path / str(number)).write_bytes(bytes([number] * 64))
    local = open_store(tmp_path)

    def read(number: int) -> bytes:
        into = bytearray(64)
        local.read_into(str(number % 9), 0, [memoryview(into)[:1], memoryview(into)[1:]])
        return bytes(into)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(read, range(900)))
    assert found == [bytes([number % 9] * 64) for number in range(900)]
    assert 0 < descriptors(tmp_path) <= 2
    del local
    assert descriptors(tmp_path) == 0


def test_a_file_that_fails_is_opened_anew(tmp_path: Path) -> None:
    """As of a network mount that has come back; the file may be another one."""
    path, into = tmp_path / "tar", bytearray(4)
    local = open_store(tmp_path)
    path.write_bytes(b"old")
    with pytest.raises(CorruptShard, match="has no byte 3"):
        local.read_into("tar", 0, [memoryview(into)])
    (tmp_path / "new").write_bytes(b"four")
    (tmp_path / "new").replace(path)
    local.read_into("tar", 0, [memoryview(into)])
    assert into == b"four"


@pytest.mark.parametrize("most", range(1, 21))
def test_pieces_are_filled_in_order_however_little_comes_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """As of a network mount, or where a signal ends a read."""
    (tmp_path / "tar").write_bytes(bytes(range(64)))
    pieces = [memoryview(bytearray(size)) for size in (7, 0, 5, 1, 7)]
    preadv = os.preadv

    def short(file: int, into: list[memoryview], offset: int) -> int:
        some, left = [], most
        for piece in into:
            some.append(piece[:left])
            left -= len(some[-1])
        return preadv(file, some, offset)

    monkeypatch.setattr(os, "preadv", short)
    open_store(tmp_path).read_into("tar", 3, pieces)
    assert b"".join(pieces) == bytes(range(3, 23))


def a_folder(path: Path) -> None:
    path.mkdir()


def in_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_bytes(b"")


def a_loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("make", [a_folder, in_a_file, a_loop])
def test_what_never_will_be_a_file_is_not_waited_for(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "bucket" / "train.tar"
    path.parent.mkdir()
    make(path)
    local = open_store(tmp_path)
    with pytest.raises(UsageError, match=r"bucket/train\.tar: cannot be read"):
        Attempts()(lambda: local.read_into("bucket/train.tar", 0, [memoryview(bytearray(4))]))


@pytest.mark.parametrize(
    ("number", "raised"),
    [
        (errno.EACCES, UsageError),
        (errno.EIO, CorruptShard),
        (errno.ESTALE, Transient),
        (errno.EMFILE, Transient),
        (errno.ETIMEDOUT, Transient),
    ],
)
def test_an_error_of_a_file_is_the_users_or_damage_or_one_that_may_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, raised: type[Exception]
) -> None:
    (tmp_path / "tar").write_bytes(b"four")
    local, into = open_store(tmp_path), bytearray(4)

    def fails(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "preadv", fails)
    with pytest.raises(raised, match="tar: "):
        local.read_into("tar", 0, [memoryview(into)])
    monkeypatch.undo()
    local.read_into("tar", 0, [memoryview(into)])
    assert into == b"four"
