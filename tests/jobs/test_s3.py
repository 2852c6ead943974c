"""Sources on a real S3 server."""

import dataclasses
import tempfile
from pathlib import Path

import fsspec
import pytest

from avdata.errors import UsageError, YieldCollapsed
from avdata.jobs.caption import caption
from avdata.jobs.encode import EncodeConfig, encode
from avdata.jobs.engine import Engine
from avdata.jobs.ingest import ingest
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.measure.source import IngestConfig
from avdata.pipeline.media.limits import MediaLimits
from avdata.pipeline.sources.files import blocks, file_system
from avdata.pipeline.sources.listing import find_sources
from tests.pipeline.media import Sound, bouncing_ball, clicks, times_at, write_movie
from tests.s3 import needs_server

pytestmark = needs_server
CONFIG, INLINE = IngestConfig(num_frames=17), Engine(inline=True)


@pytest.fixture
def bucket(s3_bucket: Path, tmp_path: Path) -> str:
    """Two names of one film, a file that is none, and notes."""
    files, name = file_system("s3://"), str(s3_bucket).rstrip("/")
    pictures = bouncing_ball()
    film = write_movie(
        tmp_path / "ball.mp4", pictures, times_at(24, len(pictures)), Sound(clicks([0.75], 2.5))
    )
    for key in ("a/ball one.mp4", "b/deep/ball.mp4"):
        files.put(str(film), f"{name}/{key}")
    files.pipe(f"{name}/a/text.mkv", b"not a video at all\n" * 50)
    files.pipe(f"{name}/a/notes.text", b"no suffix of a video")
    return name


def uris(*raw: str) -> list[str]:
    found: list[str] = find_sources(raw)["uri"].to_pylist()
    return found


def test_trees_patterns_and_lists_are_found(bucket: str, tmp_path: Path) -> None:
    one, deep, text = (f"{bucket}/{k}" for k in ("a/ball one.mp4", "b/deep/ball.mp4", "a/text.mkv"))
    assert uris(bucket) == [one, text, deep]
    assert uris(f"{bucket}/a/") == uris(f"{bucket}/a/*") == [one, text]
    assert uris(f"{bucket}/**/*.mp4") == uris(one, deep) == [one, deep]
    file_system(bucket).pipe(f"{bucket}/list.txt", b"a/ball one.mp4\nb/deep/ball.mp4\n")
    assert uris(f"{bucket}/list.txt") == [one, deep]
    (tmp_path / "list.csv").write_text(f"uri\n{deep}\n{bucket}/gone.mp4\n")
    assert uris(str(tmp_path / "list.csv")) == [deep, f"{bucket}/gone.mp4"]


def test_keys_with_an_empty_part_are_found_and_folders_are_none(bucket: str) -> None:
    files = file_system(bucket)
    before = uris(bucket)
    files.pipe({f"{bucket}/d//e.mp4": b"e", f"{bucket}/d/f.mp4/": b""})
    assert uris(bucket) == [*before, f"{bucket}/d//e.mp4"]
    assert uris(f"{bucket}/d") == uris(f"{bucket}/d*") == [f"{bucket}/d//e.mp4"]
    assert b"".join(blocks(f"{bucket}/d//e.mp4")) == b"e"


@pytest.mark.parametrize("pattern", ["", "/*", "/**/*.mp4"])
def test_a_listing_that_breaks_off_is_no_listing(
    bucket: str, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    files = file_system(bucket)
    original, whole = type(files).call_s3, uris(f"{bucket}{pattern}")

    def page(self: object, method: str, **asked: object) -> object:
        if "ContinuationToken" in asked and breaks:
            raise OSError(5, "SlowDown")
        return original(self, method, **asked, MaxKeys=1)

    monkeypatch.setattr(type(files), "call_s3", page)
    breaks = False
    assert uris(f"{bucket}{pattern}") == whole
    breaks = True
    with pytest.raises(UsageError, match="SlowDown"):
        uris(f"{bucket}{pattern}")


def test_from_s3_to_samples_as_from_files(bucket: str, tmp_path: Path) -> None:
    settings = EncodeConfig(height=96, width=160)
    near = ingest([tmp_path / "ball.mp4"], tmp_path / "near", CONFIG, engine=INLINE)
    far = ingest([bucket], tmp_path / "far", CONFIG, engine=INLINE)
    assert [c.clip_id for c in far.clips()] == [c.clip_id for c in near.clips()]
    assert far.clips()[0].source.uris == uris(f"{bucket}/**/*.mp4")
    assert [Path(row.uri).name for row in far.quarantined()] == ["text.mkv"]
    digests = []
    for manifest in (near, far):
        caption(manifest.root)
        dataset = encode(manifest.root, tmp_path / f"{manifest.root.name}-shards", settings, INLINE)
        digests.append([entry.key for entry in dataset.samples("train")])
    assert digests[0] == digests[1]


@pytest.mark.slow  # Ray starts, for what the test before shows without.
def test_sources_on_s3_are_decoded_on_a_cluster_as_here(bucket: str, tmp_path: Path) -> None:
    settings = EncodeConfig(height=96, width=160)
    root = ingest([bucket], tmp_path / "far", CONFIG, engine=INLINE).root
    caption(root)
    encode(root, tmp_path / "here", settings, INLINE)
    there = dataclasses.replace(settings, decode_on="cluster", decode_ahead=2)
    encode(root, tmp_path / "there", there, Engine(workers=1))
    made = [
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("*/*")}
        for name in ("here", "there")
    ]
    assert made[0] == made[1] != {}


def test_an_unchanged_object_is_not_read_again_and_a_changed_one_is(
    bucket: str, tmp_path: Path
) -> None:
    manifest = ingest([bucket], tmp_path / "m", CONFIG, engine=INLINE)
    before = {path: path.stat().st_mtime_ns for path in manifest.root.rglob("parts/*")}
    files = file_system(bucket)
    for key in ("ball one.mp4", "text.mkv"):
        files.pipe(f"{bucket}/c/{key}", files.cat(f"{bucket}/a/{key}"))
        files.rm(f"{bucket}/a/{key}")
    ingest([bucket], manifest.root, CONFIG, engine=INLINE)
    assert {path: path.stat().st_mtime_ns for path in manifest.root.rglob("parts/*")} == before
    assert f"{bucket}/c/ball one.mp4" in manifest.clips()[0].source.uris
    files.pipe(f"{bucket}/b/deep/ball.mp4", b"no film any more")
    ingest([bucket], manifest.root, CONFIG, engine=INLINE)
    assert {Path(row.uri).name for row in manifest.quarantined()} == {"text.mkv", "ball.mp4"}


@pytest.mark.filterwarnings("ignore")  # Ray warns of itself.
def test_ray_workers_read_s3_and_leave_no_copies(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as short:  # Ray makes sockets in there.
        monkeypatch.setenv("TMPDIR", short)
        ingest([bucket], tmp_path / "m", CONFIG, engine=Engine(workers=2))
        assert not list(Path(short).glob("avdata-*"))
    assert len(Manifest(tmp_path / "m").clips()) == 2


def test_a_source_over_the_bound_is_a_row_and_may_come_later(bucket: str, tmp_path: Path) -> None:
    small = IngestConfig(num_frames=17, limits=MediaLimits(max_fetch_gib=1e-6))
    with pytest.raises(YieldCollapsed, match="too_large_to_fetch"):
        ingest([f"{bucket}/**/*.mp4"], tmp_path / "m", small, engine=INLINE)
    assert len(ingest([bucket], tmp_path / "m", CONFIG, engine=INLINE).clips()) == 2


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong", "refused .*check AWS_ENDPOINT_URL"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9", "cannot be listed .*check AWS_ENDPOINT_URL"),
    ],
)
def test_wrong_settings_are_one_line(
    bucket: str, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(UsageError, match=message) as caught:
        uris(f"{bucket}/a")
    assert "\n" not in str(caught.value)
    assert f"{bucket}/a" in str(caught.value)


def test_what_is_not_there_is_named(bucket: str) -> None:
    for name in (f"{bucket}/none", "s3://no-such-bucket/none"):
        with pytest.raises(UsageError, match=f"{name}: no such file or folder"):
            uris(name)
