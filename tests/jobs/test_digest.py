from pathlib import Path

import pytest

from avdata import storage
from avdata.errors import RunError
from avdata.jobs import digest
from avdata.jobs.digest import digest_sources
from avdata.jobs.engine import Engine
from avdata.pipeline.arrow import from_table
from avdata.pipeline.sources.listing import find_sources
from avdata.pipeline.sources.table import SourceRow

INLINE = Engine(inline=True)


def corpus(root: Path) -> Path:
    root.mkdir()
    for number in range(9):
        (root / f"{number}.mp4").write_bytes(b"%d" % (number % 5))
    return root


def digested(root: Path, raw: Path, engine: Engine) -> list[SourceRow]:
    return from_table(SourceRow, digest_sources(root, find_sources([raw]), 1.0, engine, 100))


def test_many_that_cannot_be_read_in_a_row_stop_it(tmp_path: Path) -> None:
    """Not so many are quarantined, and one between them that can be read begins anew."""
    raw, root = corpus(tmp_path / "raw"), tmp_path / "m"
    found = find_sources([raw])
    for number in (0, 1, 3, 4, 5):
        (raw / f"{number}.mp4").unlink()
    assert len(digest_sources(root, found, 1.0, INLINE, 4)) == 9
    with pytest.raises(RunError, match=r"5\.mp4: the last of 3 sources in a row .*missing"):
        digest_sources(tmp_path / "other", found, 1.0, INLINE, 3)


def test_what_workers_write_elsewhere_is_no_end_of_digesting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest, "write_digests", lambda _root, _rows: None)
    with pytest.raises(RunError, match=r"9 have neither a digest .*0\.mp4 among them"):
        digested(tmp_path / "m", corpus(tmp_path / "raw"), INLINE)


@pytest.mark.filterwarnings("ignore")  # Ray warns of itself.
@pytest.mark.parametrize("engine", [INLINE, Engine(workers=2)])
def test_every_name_has_the_digest_of_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine
) -> None:
    monkeypatch.setattr(digest, "INLINE_BYTES", 0)  # So little would not be given to Ray.
    raw = corpus(tmp_path / "raw")
    rows = digested(tmp_path / "m", raw, engine)
    assert [row.uri for row in rows] == [str(raw / f"{number}.mp4") for number in range(9)]
    assert [row.digest for row in rows] == [storage.digest_file(Path(row.uri)) for row in rows]
    assert len({row.digest for row in rows}) == 5


def test_batches_that_are_there_are_not_done_again(tmp_path: Path) -> None:
    raw, root = corpus(tmp_path / "raw"), tmp_path / "m"
    before = digested(root, raw, INLINE)
    first, *rest = sorted(root.glob("digests/*"))
    times = {path: path.stat().st_mtime_ns for path in rest}
    first.unlink()
    assert digested(root, raw, INLINE) == before
    assert {path: path.stat().st_mtime_ns for path in rest} == times


def test_what_cannot_be_read_has_a_reason_and_is_tried_again(tmp_path: Path) -> None:
    raw, root = corpus(tmp_path / "raw"), tmp_path / "m"
    found = find_sources([raw])
    (raw / "3.mp4").rename(raw / "elsewhere")
    for attempts in (1, 2):
        failed = from_table(SourceRow, digest_sources(root, found, 1.0, INLINE, 100))[3]
        assert (failed.digest, failed.stage, failed.reason) == (None, "read", "missing")
        assert failed.attempts == attempts
    (raw / "elsewhere").rename(raw / "3.mp4")
    good = from_table(SourceRow, digest_sources(root, found, 1.0, INLINE, 100))[3]
    assert (good.digest, good.stage) == (storage.digest_file(raw / "3.mp4"), None)
