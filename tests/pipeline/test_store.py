import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from avdata.errors import CorruptShard, UsageError
from avdata.pipeline.shards import store
from avdata.pipeline.shards.store import open_store


def test_what_reads_s3_is_named_by_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
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
