"""Columns of a table on disk."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avdata.errors import RunError
from avdata.pipeline.shards import column as columns
from avdata.pipeline.shards.column import Column, seal, write_column

COUNT, SIZE = 3000, 100
TYPE = np.dtype([("key", f"S{SIZE - 8}"), ("place", "<u8")])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("column") / "some.npy"
    array = write_column(path, TYPE, COUNT)
    array["key"], array["place"] = np.arange(COUNT).astype("S"), np.arange(COUNT) << 30
    array.flush()
    seal(path, TYPE)
    return path


@pytest.fixture
def copied(written: Path, tmp_path: Path) -> Path:
    """One that may be spoilt."""
    return shutil.copytree(written.parent, tmp_path / "copy") / written.name


@settings(deadline=None, max_examples=40)
@given(rows=st.lists(st.integers(0, 2999)), first=st.integers(0, 3000), end=st.integers(0, 3000))
def test_rows_of_a_column_are_those_of_the_array(
    written: Path, rows: list[int], first: int, end: int
) -> None:
    whole, found = np.load(written), Column(written, TYPE)
    wanted = np.array(rows, np.int64)
    assert np.array_equal(found[wanted], whole[wanted])
    assert np.array_equal(found[first:end], whole[first:end])
    together = np.repeat(np.sort(wanted), 2)
    assert np.array_equal(found[together], whole[together])


def test_neighbours_are_read_together_but_only_so_many(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most, reads, pread = 128, [], os.pread

    def noted(file: int, length: int, offset: int) -> bytes:
        reads.append(length)
        return pread(file, length, offset)

    whole, found = np.load(written), Column(written, TYPE)
    monkeypatch.setattr(columns, "MOST_ROWS", most)
    monkeypatch.setattr(os, "pread", noted)
    assert np.array_equal(found[np.arange(COUNT)[::-1]], whole[::-1])
    assert np.array_equal(found[50:2990], whole[50:2990])
    assert len(reads) <= 2 * -(-COUNT // most)
    block = columns.BLOCK_BYTES  # At either end, where rows of it are not wanted.
    assert max(reads) <= most * SIZE + 2 * block


def test_a_step_between_rows_is_refused(written: Path) -> None:
    with pytest.raises(ValueError, match="rows with a step of 2"):
        _ = Column(written, TYPE)[0:9:2]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::SyntaxWarning")
@pytest.mark.parametrize("name", ["some.npy", "some.digests.npy"])
def test_a_header_with_a_changed_bit_is_refused_or_says_the_same(copied: Path, name: str) -> None:
    path, whole = copied.with_name(name), np.load(copied)[-9:]
    data = path.read_bytes()
    refused = 0
    with path.open("r+b", buffering=0) as file:
        for place in range(data.index(b"\n") + 1):
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([data[place] ^ 1 << bit]), place)
                try:
                    found = Column(copied, TYPE)
                except ValueError:
                    refused += 1
                else:
                    assert np.array_equal(found[COUNT - 9 : COUNT], whole)
            os.pwrite(file.fileno(), data[place : place + 1], place)
    assert refused > 500


@pytest.mark.parametrize(
    ("number", "message", "kept"),
    [
        (errno.EIO, "shards are not at fault", False),
        (errno.ESTALE, "start again once that has passed", True),
    ],
)
def test_rows_that_cannot_be_read_are_named_and_made_again_where_the_disk_is_at_fault(
    copied: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str, kept: bool
) -> None:
    def fails(*_: object) -> bytes:
        raise OSError(number, os.strerror(number))

    found = Column(copied, TYPE)
    monkeypatch.setattr(os, "pread", fails)
    with pytest.raises(RunError, match=rf"some\.npy: .*{message}"):
        _ = found[0:1]
    assert copied.exists() == kept
