import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avdata import storage

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


def test_a_file_appears_when_its_block_ends(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "a.txt"
    with storage.committed(file) as temporary:
        temporary.write_text("whole")
        assert not file.exists()
        assert temporary.parent == file.parent
    assert file.read_text() == "whole"
    assert list(file.parent.iterdir()) == [file]


def test_an_exception_leaves_what_was_there_before(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"

    def write_half() -> None:
        with storage.committed(file) as temporary:
            temporary.write_text("half")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_half()
    assert list(tmp_path.iterdir()) == []
    file.write_text("old")
    with pytest.raises(RuntimeError, match="half way"):
        write_half()
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_text() == "old"


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.parquet'"):
        fill(file)
    assert list(tmp_path.iterdir()) == []


def fill(file: Path) -> None:
    with storage.committed(file), open_full() as full:
        os.write(full, b"x")


@contextmanager
def open_full() -> Iterator[int]:
    full = os.open("/dev/full", os.O_WRONLY)
    yield full
    os.close(full)


def test_a_block_that_wrote_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), storage.committed(tmp_path / "a.txt"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_kill_leaves_only_a_temporary_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    code = (
        "import os, signal, sys; from pathlib import Path; from avdata import storage\n"
        "with storage.committed(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(file)], check=False)
    assert ended.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.match("a.txt.tmp-*")
    storage.write_json(file, "whole")
    assert file.read_text() == '"whole"\n'


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    with storage.committed(file) as one, storage.committed(file) as other:
        one.write_text("one")
        other.write_text("other")
    assert file.read_text() == "one"  # The outer block ends last.
    assert list(tmp_path.iterdir()) == [file]


def test_equal_values_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        storage.write_json(tmp_path / name, {"b": [1, 2.5, None], "a": "Stoß"})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert "Stoß" in (tmp_path / "one").read_text()


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=3), JSON, max_size=4))
def test_the_digest_of_json_knows_no_order_of_keys(value: dict[str, object]) -> None:
    turned = dict(reversed(value.items()))
    assert storage.digest_json(turned) == storage.digest_json(value)


def test_other_values_have_other_digests() -> None:
    values = [1, "1", [1], [1, 2], [2, 1], {"1": 1}, None, True]
    assert len({storage.digest_json(value) for value in values}) == len(values)


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1])
def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    file = tmp_path / "a"
    file.write_bytes(data)
    assert storage.digest_file(file) == storage.digest_bytes(data)
