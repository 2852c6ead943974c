"""What goes wrong around ingest: disks, networks, clusters, damaged files."""

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from avdata.errors import MediaError, RunError
from avdata.jobs.digest import digest_sources
from avdata.jobs.engine import Engine
from avdata.jobs.ingest import ingest
from avdata.pipeline.arrow import from_table
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.measure.source import IngestConfig
from avdata.pipeline.parts import Parts
from avdata.pipeline.sources.digests import write_digests
from avdata.pipeline.sources.table import SourceRow
from tests.jobs.films import write_raw

INLINE = Engine(inline=True)
CONFIG = IngestConfig(num_frames=17)
BALL = "ball.mp4"


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good video and two files that are none."""
    return write_raw(tmp_path_factory.mktemp("raw"), [BALL])


@pytest.fixture
def manifest(measured: Path, tmp_path: Path) -> Manifest:
    return Manifest(Path(shutil.copytree(measured, tmp_path / "manifest")))


def assembled(manifest: Manifest) -> tuple[bytes, bytes]:
    return manifest.clips_file.read_bytes(), manifest.quarantine_file.read_bytes()


def test_many_that_cannot_be_read_in_a_row_stop_it_and_are_tried_again(
    raw: Path, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(uri: str, _gib: float) -> None:
        raise MediaError("read", "unreadable", f"{uri}: Input/output error")

    few = dataclasses.replace(CONFIG, max_failures_in_a_row=3)
    with monkeypatch.context() as patched:
        patched.setattr("avdata.jobs.ingest.local_copy", broken)
        with pytest.raises(RunError, match=r"last of 3 sources in a row .*Input/output error"):
            ingest([raw], tmp_path / "m", few, engine=INLINE)
    after = ingest([raw], tmp_path / "m", few, engine=INLINE)
    assert [row.reason for row in after.quarantined()] == ["empty_file", "not_media"]
    assert after.table().equals(manifest.table())


def test_a_content_is_read_under_any_name_that_still_has_it(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each folder the first name loses it once the digests are known; one has no other name."""
    folders = ("gone", "text", "other", "alone")
    films = [tmp_path / "raw" / folder / name for folder in folders for name in ("a.mp4", "b.mp4")]
    film, content = (raw / BALL).read_bytes(), {}
    for path in films[:-1]:
        path.parent.mkdir(parents=True, exist_ok=True)
        content[path] = film + path.parent.name.encode()
        path.write_bytes(content[path])

    def then_lose(*args: Any) -> pa.Table:
        digests = digest_sources(*args)
        films[0].unlink()
        films[2].write_text("not a video at all")
        films[4].write_bytes(film)
        films[6].write_text("not a video at all")
        return digests

    with monkeypatch.context() as patched:
        patched.setattr("avdata.jobs.ingest.digest_sources", then_lose)
        found = ingest([tmp_path / "raw"], tmp_path / "m", CONFIG, engine=INLINE)
    names = {name for clip in found.clips() for name in clip.source.uris}
    assert names == {str(path) for path in films[:6]}
    (lost,) = found.quarantined()
    assert (lost.uri, lost.stage, lost.reason) == (str(films[6]), "read", "changed")
    films[6].write_bytes(content[films[6]])
    found = ingest([tmp_path / "raw"], tmp_path / "m", CONFIG, engine=INLINE)
    assert [row.uri for row in found.quarantined()] == [str(films[2])]
    assert str(films[6]) in {clip.source.uri for clip in found.clips()}


def test_what_is_damaged_is_made_again(raw: Path, manifest: Manifest) -> None:
    before, root = assembled(manifest), manifest.root
    write_digests(root, from_table(SourceRow, manifest.sources()))
    for folder, left in (("digests", 0), ("parts", 100), ("quarantine", 2)):
        os.truncate(next((root / folder).iterdir()), left)
    os.truncate(manifest.clips_file, 100)
    ingest([raw], root, CONFIG, engine=INLINE)
    assert assembled(manifest) == before


def test_what_is_damaged_and_cannot_be_made_again_is_named(raw: Path, manifest: Manifest) -> None:
    os.truncate(manifest.quarantine_file, 100)
    with pytest.raises(RunError, match=r"/quarantine\.parquet: damaged .*run `avdata ingest`"):
        manifest.quarantined()
    part = next((manifest.root / "parts").iterdir())
    part.write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    with pytest.raises(RunError, match=rf"{part}: damaged .*delete it and run the"):
        manifest.reassemble()
    part.unlink()
    os.truncate(manifest.sources_file, 100)
    for use in (manifest.sources, lambda: ingest([raw], manifest.root, CONFIG, engine=INLINE)):
        with pytest.raises(RunError, match=r"/sources\.parquet: damaged .*delete it and run"):
            use()
    manifest.sources_file.unlink()
    assert len(ingest([raw], manifest.root, CONFIG, engine=INLINE).clips()) == 2


def test_what_workers_commit_elsewhere_is_no_end_of_ingest(
    raw: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As those of a cluster would whose folder of this name is another."""
    before, far = assembled(manifest), Path(shutil.copytree(raw, tmp_path / "raw"))
    with (far / BALL).open("ab") as file:
        file.write(b"1")
    monkeypatch.setattr(Parts, "write_clips", lambda *_: None)
    with pytest.raises(RunError, match=rf"1 have neither clips .*{far / BALL} among"):
        ingest([far], manifest.root, CONFIG, engine=INLINE)
    assert assembled(manifest) == before
