import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from avdata import storage
from avdata.errors import RunError, UsageError
from avdata.pipeline.arrow import from_table
from avdata.pipeline.sources.clips import held
from avdata.pipeline.sources.copies import LocalCopies, fetch, local_copy, remove_copies_of_the_dead
from avdata.pipeline.sources.listing import find_sources
from avdata.pipeline.sources.table import SourceRow


def touched(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def found(*raw: str | Path) -> list[SourceRow]:
    return from_table(SourceRow, find_sources(raw))


def names(root: Path, *raw: str | Path) -> list[str]:
    return [str(Path(row.uri).relative_to(root)) for row in found(*raw)]


def test_videos_are_found_by_suffix_at_any_depth_in_order(tmp_path: Path) -> None:
    touched(tmp_path, "b.mp4", "a/z.MKV", "a/deep/x.webm", "notes.text", "c.jpg", "mp4", ".mp4")
    assert names(tmp_path, tmp_path) == ["a/deep/x.webm", "a/z.MKV", "b.mp4"]


def test_a_file_named_itself_is_taken_whatever_its_suffix(tmp_path: Path) -> None:
    touched(tmp_path, "a.mp4", "odd.bin")
    assert names(tmp_path, tmp_path / "odd.bin") == ["odd.bin"]
    assert names(tmp_path, tmp_path, f"file://{tmp_path}/odd.bin") == ["a.mp4", "odd.bin"]


def test_a_file_named_twice_or_through_a_link_is_one(tmp_path: Path) -> None:
    touched(tmp_path, "a.mp4")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "a.mp4")
    (tmp_path / "dangling.text").symlink_to(tmp_path / "nowhere")
    assert names(tmp_path, tmp_path, tmp_path / "a.mp4", tmp_path / "*.mp4") == ["a.mp4"]


def test_the_way_it_was_named_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched(tmp_path, "in/a.mp4")
    monkeypatch.chdir(tmp_path)
    wanted = found(tmp_path / "in")
    assert found("in") == found("in/../in/a.mp4") == found("in/*.mp4") == wanted


@contextmanager
def unprivileged() -> Iterator[Path]:
    """A folder in which this process may do no more than anybody."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        is_root = os.geteuid() == 0
        if is_root:
            os.chown(folder, 65_534, -1)
            os.seteuid(65_534)
        try:
            yield Path(folder)
        finally:
            if is_root:
                os.seteuid(0)


@pytest.mark.parametrize("pattern", ["", "*", "**", "*/*.mp4", "*/*/*.mp4", "**/*.mp4"])
def test_a_folder_that_cannot_be_listed_is_named(pattern: str) -> None:
    with unprivileged() as root:
        touched(root, "b.mp4", "deep/er/a.mp4", "locked/c.mp4", "locked/in/d.mp4")
        (root / "locked").chmod(0)
        try:
            with pytest.raises(UsageError, match=rf"^{root}/locked: refused"):
                found(root / pattern)
            assert names(root, root / "deep", root / "d*/*") == ["deep/er/a.mp4"]
        finally:
            (root / "locked").chmod(0o700)


def test_links_to_folders_are_followed_and_each_folder_is_listed_once(tmp_path: Path) -> None:
    touched(tmp_path, "in/b.mp4", "in/deep/c.mp4", "disk/a.mp4", "disk/deep/d.mp4")
    for link, target in {"disk": "../disk", "again": "../disk", "deep/up": "../../in"}.items():
        (tmp_path / "in" / link).symlink_to(target)
    (tmp_path / "in/deep/self.txt").symlink_to("self.txt")
    (tmp_path / "disk/loop").symlink_to("../in/again")
    every = ["disk/a.mp4", "disk/deep/d.mp4", "in/b.mp4", "in/deep/c.mp4"]
    for pattern in ("", "*", "**", "**/*.mp4"):
        assert names(tmp_path, tmp_path / "in" / pattern) == every
    assert names(tmp_path, tmp_path / "in/*/*.mp4") == ["disk/a.mp4", "in/deep/c.mp4"]
    assert names(tmp_path, tmp_path / "in/again/*.mp4") == ["disk/a.mp4"]
    assert names(tmp_path, tmp_path / "in/ag*/*/*.mp4") == ["disk/a.mp4", "disk/deep/d.mp4"]


def test_a_folder_named_like_a_video_is_none(tmp_path: Path) -> None:
    touched(tmp_path, "a.mp4/b.mp4")
    assert names(tmp_path, tmp_path) == ["a.mp4/b.mp4"]


def test_patterns_take_media_at_their_depth_and_whole_folders(tmp_path: Path) -> None:
    touched(tmp_path, "a/x.mkv", "a/b/y.mkv", "a/b/z.mp4", "a/notes.text", "[2020].mp4")
    assert names(tmp_path, tmp_path / "a/*.mkv") == ["a/x.mkv"]
    assert names(tmp_path, tmp_path / "a/**/*.mkv") == ["a/b/y.mkv", "a/x.mkv"]
    assert names(tmp_path, tmp_path / "a/*") == ["a/b/y.mkv", "a/b/z.mp4", "a/x.mkv"]
    assert names(tmp_path, f"{tmp_path}/a/*/") == ["a/b/y.mkv", "a/b/z.mp4"]
    assert names(tmp_path, f"{tmp_path}/a/../a/*/") == ["a/b/y.mkv", "a/b/z.mp4"]
    assert names(tmp_path, tmp_path / "[2020].mp4") == ["[2020].mp4"]
    with pytest.raises(UsageError, match=r"none\*: nothing has such a name"):
        found(tmp_path / "none*")


@pytest.mark.parametrize("column", ["uri", "path", "url"])
def test_lists_carry_their_other_columns(tmp_path: Path, column: str) -> None:
    touched(tmp_path, "a.mp4", "in/b.bin")
    rows = [{column: "in/b.bin", "take": 3}, {column: str(tmp_path / "a.mp4"), "take": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "l.parquet")
    (tmp_path / "l.csv").write_text(f"take,{column},who\n3,in/b.bin,\u00e4\n,a.mp4,\n")
    (tmp_path / "l.txt").write_text("in/b.bin\n\n a.mp4\n")
    a, b = str(tmp_path / "a.mp4"), str(tmp_path / "in/b.bin")
    extra = {name: {row.uri: row.extra for row in found(tmp_path / name)} for name in LISTS}
    assert extra["l.txt"] == {a: None, b: None}
    assert extra["l.parquet"] == {a: None, b: '{"take": 3}'}
    assert extra["l.csv"] == {a: None, b: '{"take": "3", "who": "\u00e4"}'}
    both = {row.uri: row.extra for row in found(tmp_path, tmp_path / "l.csv")}
    assert json.loads(both[b] or "")["take"] == "3"


LISTS = ("l.txt", "l.csv", "l.parquet")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.csv", "name\na.mp4\n", "no column uri, path, url; it has name"),
        ("l.csv", "uri\na.mp4,b\n", "line 2 has more cells"),
        ("l.csv", "uri,b\n,1\n", "line 2: uri is '', not a name"),
        ("l.csv", "uri,b,c,b\na.mp4,1,2,3\n", r"l\.csv: column 'b' is there twice"),
        ("l.txt", b"\xff.mp4\n", "not UTF-8"),
        ("l.parquet", "no", "not Parquet"),
        ("l.txt", "http://example.org/a.mp4\n", "only local paths and s3://"),
    ],
)
def test_a_list_that_makes_no_sense_is_named(
    tmp_path: Path, name: str, text: str | bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=message):
        found(tmp_path / name)


def test_what_a_list_names_and_is_not_there_is_a_row_with_a_reason(tmp_path: Path) -> None:
    touched(tmp_path, "a.mp4", "in/b.mp4")
    (tmp_path / "l.txt").write_text("a.mp4\nmissing.mp4\nin\n")
    reasons = {Path(row.uri).name: row.reason for row in found(tmp_path / "l.txt")}
    assert reasons == {"a.mp4": None, "missing.mp4": "missing", "in": "not_a_file"}


@pytest.mark.parametrize("pattern", ["", "*/*.mp4", "**"])
def test_a_link_that_leads_nowhere_is_a_row_with_a_reason(tmp_path: Path, pattern: str) -> None:
    touched(tmp_path, "in/a.mp4")
    broken = {"gone.mp4": "../gone.mkv", "self.mp4": "self.mp4", "below.mp4": "a.mp4/b.mp4"}
    for name, target in broken.items():
        (tmp_path / "in" / name).symlink_to(target)
    (tmp_path / "in" / "notes.txt").symlink_to("nowhere")
    if not pattern.endswith(".mp4"):
        broken["mount"] = "../not/there"
        (tmp_path / "in" / "mount").symlink_to(broken["mount"])
    rows = {Path(row.uri).name: row for row in found(tmp_path / pattern)}
    assert {name for name, row in rows.items() if row.stage is None} == {"a.mp4"}
    assert rows.keys() == {"a.mp4", *broken}
    for name, target in broken.items():
        assert (rows[name].uri, rows[name].reason) == (str(tmp_path / "in" / name), "missing")
        assert f"a link to {target}," in str(rows[name].detail)


def test_clips_that_were_made_of_sources_are_none_unless_they_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    touched(tmp_path, "a.mp4", "out/clips.json", "out/rows/1.json", "out/clips/1/1.mp4")
    touched(tmp_path, "mine/clips.json", "mine/clips/b.mp4")  # Not ours.
    for raw in (tmp_path, tmp_path / "*", tmp_path / "**/*.mp4"):
        assert names(tmp_path, raw) == ["a.mp4", "mine/clips/b.mp4"]
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{tmp_path}/out: left out" in line
    for raw in (tmp_path / "out", tmp_path / "out/*", tmp_path / "out/clips/1/1.mp4"):
        assert names(tmp_path, raw) == ["out/clips/1/1.mp4"]
        assert capsys.readouterr().err == ""


def test_odd_names_cost_themselves_alone(tmp_path: Path) -> None:
    touched(tmp_path, "a.mp4")
    (tmp_path / "self.mp4").symlink_to("self.mp4")
    (tmp_path / "l.txt").write_bytes(b"a.mp4\nfoo\0bar.mp4\nself.mp4\n")
    reasons = {Path(row.uri).name: row.reason for row in found(tmp_path / "l.txt")}
    assert reasons == {"a.mp4": None, "foo\0bar.mp4": "file_name", "self.mp4": "unreadable"}


@pytest.mark.parametrize("copied", ["local", "kept"])
def test_a_key_may_be_longer_than_a_file_name(monkeypatch: pytest.MonkeyPatch, copied: str) -> None:
    monkeypatch.setattr("avdata.pipeline.sources.copies.blocks", lambda _: iter([b"film"]))
    copy = local_copy if copied == "local" else kept_copy
    with copy(f"s3://b/{'L' * 300}.mp4", 1.0) as path:
        assert path.suffix == ".mp4"
        assert path.read_bytes() == b"film"


@contextmanager
def kept_copy(uri: str, gib: float) -> Iterator[Path]:
    with held(uri, storage.digest_bytes(b"film"), LocalCopies(gib)) as path:
        yield path


def test_a_list_of_what_is_refused_stops_after_so_many() -> None:
    with unprivileged() as root:
        touched(root, "a/a.mp4", "a/b.mp4", "a/c.mp4")
        (root / "l.txt").write_text("gone.mp4\ngone2.mp4\na/a.mp4\na/b.mp4\na/c.mp4\n")
        (root / "a").chmod(0)
        try:
            assert [row.reason for row in found(root / "l.txt")] == ["refused"] * 3 + [
                "missing"
            ] * 2
            assert len(find_sources([root / "l.txt"], 4)) == 5
            with pytest.raises(RunError, match=r"a/c\.mp4: the last of 3 .*refused"):
                find_sources([root / "l.txt"], 3)
        finally:
            (root / "a").chmod(0o700)


def test_a_full_disk_of_ours_is_no_fault_of_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avdata.pipeline.sources.copies.blocks", lambda _: iter([b"film"]))
    with pytest.raises(RunError, match=r"/dev/full: .*No space left on device.*TMPDIR"):
        fetch("s3://b/film.mp4", Path("/dev/full"), 1.0, "limits.max_fetch_gib")


def test_an_empty_name_is_not_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched(tmp_path, "a.mp4", "l.txt")
    (tmp_path / "l.txt").write_text("\n\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="an empty name"):
        found("")
    with pytest.raises(UsageError, match=r"l\.txt: a list that names nothing"):
        found("l.txt")


def test_file_uris_are_decoded_and_other_names_are_not(tmp_path: Path) -> None:
    touched(tmp_path, "a b.mp4", "a%20b.mp4")
    assert names(tmp_path, f"file://{tmp_path}/a%20b.mp4") == ["a b.mp4"]
    assert names(tmp_path, f"{tmp_path}/a%20b.mp4") == ["a%20b.mp4"]
    (tmp_path / "l.txt").write_text(f"file://{tmp_path}/a%20b.mp4\n")
    assert names(tmp_path, tmp_path / "l.txt") == ["a b.mp4"]


def test_what_a_list_says_is_json_whatever_its_numbers(tmp_path: Path) -> None:
    touched(tmp_path, "a.mp4")
    row = {"uri": "a.mp4", "score": float("inf"), "v": [float("nan"), 1.0], "ok": 2}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "l.parquet")
    (one,) = found(tmp_path / "l.parquet")
    assert one.extra == '{"ok": 2, "v": [null, 1.0]}'


def test_a_name_that_is_no_text_is_a_row_with_a_reason(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4")).touch()
    (row,) = found(tmp_path)
    assert row.uri == f"{tmp_path}/\\xff.mp4"
    assert (row.stage, row.reason) == ("list", "file_name")
    (tmp_path / r"\xff.mp4").write_bytes(b"good")  # Whose name is what the other's is shown as.
    for raw in ([tmp_path / r"\xff.mp4", tmp_path], [tmp_path, tmp_path / r"\xff.mp4"]):
        (row,) = found(*raw)
        assert (row.uri, row.size_bytes, row.stage) == (f"{tmp_path}/\\xff.mp4", 4, None)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    touched(tmp_path, "a.mp4")
    with pytest.raises(UsageError, match=r"missing: no such file or folder"):
        found(tmp_path, tmp_path / "missing")


def test_nothing_to_do_says_what_was_looked_for(tmp_path: Path) -> None:
    touched(tmp_path, "notes.text")
    with pytest.raises(UsageError, match=r"no media files there.*\.mp4") as caught:
        found(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_local_source_is_not_copied_and_copies_of_dead_processes_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local_copy(str(tmp_path / "a.mp4"), 1.0) as path:
        assert path == tmp_path / "a.mp4"
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with monkeypatch.context() as another:
        another.setattr("os.getpid", lambda: 99_999_999)
        dead = LocalCopies(1.0)
        another.setattr("socket.gethostname", lambda: "elsewhere")
        far = LocalCopies(1.0)
    living = LocalCopies(1.0)
    before = set(tmp_path.iterdir())
    remove_copies_of_the_dead()
    (gone,) = before - set(tmp_path.iterdir())
    assert "-99999999-" in gone.name
    assert "elsewhere" not in gone.name
    del dead, far, living
    assert list(tmp_path.iterdir()) == []


def test_copies_of_a_process_outside_this_container_stay(tmp_path: Path) -> None:
    inside = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    if shutil.which("unshare") is None or subprocess.run([*inside, "true"], check=False).returncode:
        pytest.skip("no namespaces may be made here")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tempfile.tempdir", str(tmp_path))
        copies = LocalCopies(1.0)
    looks = "from avdata.pipeline.sources.copies import *; remove_copies_of_the_dead()"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run([*inside, sys.executable, "-c", looks], env=environment, check=True)
    assert len(list(tmp_path.iterdir())) == 1
    del copies
