"""Commands that write a folder: one at a time, and how they end."""

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from avdata import storage
from avdata.errors import UsageError
from avdata.jobs.caption import caption
from avdata.jobs.clips import ClipsConfig, write_clips
from avdata.jobs.encode import EncodeConfig, encode
from avdata.jobs.engine import Engine
from avdata.jobs.ingest import ingest
from avdata.jobs.select import select
from avdata.jobs.semantics import semantics
from avdata.jobs.semantics_config import SemanticsConfig
from avdata.pipeline.clip_files import ClipFiles
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.measure.source import IngestConfig
from tests.jobs.films import run
from tests.pipeline.clips import a_clip, assemble, write_parts

INLINE = Engine(inline=True)
HOLD = """
import sys
from pathlib import Path
from avdata import storage
with storage.written(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
WRITERS: dict[str, Callable[[Path, Path], object]] = {
    "ingest": lambda root, raw: ingest([raw], root, IngestConfig(num_frames=17), engine=INLINE),
    "select": lambda root, _: select(root, None),
    "caption": lambda root, _: caption(root),
    "semantics": lambda root, _: semantics(root, SemanticsConfig(), INLINE),
}


READERS: dict[str, Callable[[Path, Path], object]] = {
    "clips": lambda root, out: write_clips(root, out, ClipsConfig(), INLINE),
    "encode": lambda root, out: encode(root, out, EncodeConfig(height=32, width=48), INLINE),
}


def tree(root: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(root)): p.read_bytes()
        for p in root.rglob("*")
        if p.is_file() and p.name != "lock"
    }


@contextmanager
def held(folder: Path) -> Iterator[str]:
    """Inside the block another process writes the folder, and ends by being killed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        yield rf"{folder}: another process \(pid {other.pid} on"
        other.kill()


def test_a_manifest_is_written_by_one_command_at_a_time(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, raw = Path(shutil.copytree(manifest, tmp_path / "m")), manifest.parent / "raw"
    monkeypatch.setattr(storage, "WRITER_SECONDS", 0.0)
    before = tree(root)
    with held(root) as by:
        for write in WRITERS.values():
            with pytest.raises(UsageError, match=by):
                write(root, raw)
    assert tree(root) == before
    assert len(ingest([raw], root, IngestConfig(num_frames=17), engine=INLINE).clips()) == 4
    assert select(root, None)["clips"] == 4


@pytest.mark.parametrize(
    "command", ["select", "caption", "semantics", "clips", "encode", "verify", "report"]
)
def test_what_is_no_manifest_of_this_version_is_named_and_left_as_it_is(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older, clips, out = Manifest(tmp_path / "older"), tmp_path / "clips", tmp_path / "out"
    older.set_policy(None)
    write_parts(older, [a_clip()], [])
    assemble(older, ["a.mp4"])
    pq.write_table(older.table().drop_columns(["sync"]), older.clips_file)
    ClipFiles(clips).write_index([], [])
    (tmp_path / "all.yaml").write_text("rules: {}")
    options = {
        "select": ["--policy", tmp_path / "all.yaml"],
        **{name: ["--out", out, "--inline"] for name in READERS},
    }
    for root, code in ((older.root, 1), (clips, 2)):
        before = tree(root)
        assert run(command, root, *options.get(command, [])) == code
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"avdata: {root}")
        assert tree(root) == before
        assert not out.exists()


@pytest.mark.parametrize("command", READERS)
def test_what_is_made_of_a_manifest_is_written_by_one_command_at_a_time(
    command: str, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "WRITER_SECONDS", 0.0)
    out, write = tmp_path / "out", READERS[command]
    with held(out) as by, pytest.raises(UsageError, match=by):
        write(manifest, out)
    assert not tree(out)
    write(manifest, out)
    assert tree(out)


def test_a_policy_that_keeps_nothing_ends_with_3(manifest: Path, tmp_path: Path) -> None:
    root, raw = Path(shutil.copytree(manifest, tmp_path / "m")), manifest.parent / "raw"
    none = tmp_path / "none.yaml"
    none.write_text("rules: {all: start_s >= 0}")
    assert run("select", root, "--policy", none) == 3
    frames = ("--set", "num_frames=17")
    assert run("ingest", raw, "--out", root, "--inline", "--policy", none, *frames) == 3
    assert run("select", root) == 0


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_what_nothing_was_kept_for_is_said_though_it_was_to_be_captioned(
    as_json: tuple[str, ...], manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, raw = Path(shutil.copytree(manifest, tmp_path / "m")), manifest.parent / "raw"
    none = tmp_path / "none.yaml"
    none.write_text("rules: {all: start_s >= 0}")
    options = ("--inline", "--caption", "--policy", none, "--set", "num_frames=17")
    assert run("ingest", raw, "--out", root, *options, *as_json) == 3
    said = capsys.readouterr()
    assert ('"all": 4' if as_json else "dropped 4 by all") in said.out
    assert "none of 4 clips is kept" in said.err


def test_the_engine_of_ingest_is_that_of_its_captions(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, raw = Path(shutil.copytree(manifest, tmp_path / "m")), manifest.parent / "raw"
    engines: list[Engine | None] = []

    def captioned(_: Path, engine: Engine | None = None) -> None:
        engines.append(engine)

    monkeypatch.setattr("avdata.jobs.caption.caption", captioned)
    options = ("--inline", "--caption", "--workers", "2", "--set", "num_frames=17")
    assert run("ingest", raw, "--out", root, *options) == 0
    assert engines == [Engine(inline=True, workers=2)]


@pytest.mark.parametrize("command", ["ingest", *READERS])
def test_a_folder_whose_name_is_no_text_is_refused_before_anything_is_made(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / os.fsdecode(b"out\xff")
    assert run(command, tmp_path, "--out", out) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(rf"avdata: {tmp_path}/out\xff: its name is not UTF-8")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_says_how_to_go_on(
    manifest: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("avdata.jobs.ingest.find_sources", interrupted)
    assert run("ingest", manifest, "--out", tmp_path / "m", "--inline") == 130
    assert capsys.readouterr().err == "avdata: stopped; run it again to go on\n"


def test_a_run_that_was_killed_before_its_first_commit_is_gone_on_with(
    manifest: Path, tmp_path: Path
) -> None:
    root, raw = tmp_path / "m", manifest.parent / "raw"
    root.mkdir()
    (root / "lock").write_text("pid 1 on elsewhere")
    (root / "policy.yaml.tmp-0123456789ab").write_text("half")
    one = dataclasses.replace(IngestConfig(num_frames=17), max_clips_per_source=1)
    assert len(ingest([raw / "one.mp4"], root, one, engine=INLINE).clips()) == 1
    (root / "policy.yaml").unlink()
    assert run("ingest", raw, "--out", root, "--inline") == 2
