import csv
import dataclasses
import os
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from avdata.encoders.spec import ClipShape
from avdata.errors import MediaError, RunError, SourceLost, UsageError
from avdata.jobs.clips import ClipsConfig, Written, write_clips
from avdata.jobs.engine import Engine
from avdata.jobs.ingest import ingest
from avdata.jobs.select import select
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.measure.source import IngestConfig
from avdata.pipeline.media.clip import ClipMedia
from avdata.pipeline.media.write import write_mp4
from avdata.pipeline.shards.decoders import DecodeLimits, Decoders
from avdata.pipeline.sources.clips import clip_media
from avdata.pipeline.sources.copies import LocalCopies
from tests.jobs.films import run
from tests.pipeline.media import (
    Coding,
    clicks,
    textured,
    times_at,
    with_square,
    write_movie,
)

INLINE = Engine(inline=True)
POLICY = "name: all\nrules: {}\n"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    background = textured(3, 72, 120)
    frames = [with_square(background, k, 20) for k in range(60)]
    (folder / "raw").mkdir()
    write_mp4(folder / "raw" / "a.mp4", np.stack(frames), 24, clicks([0.7, 1.7], 2.5), 44_100)
    (folder / "policy.yaml").write_text(POLICY)
    config = IngestConfig(num_frames=17)
    ingest([str(folder / "raw")], folder / "m", config, folder / "policy.yaml", INLINE)
    return folder / "m"


def test_each_kept_clip_is_a_counted_file(manifest: Path, tmp_path: Path) -> None:
    rows = write_clips(manifest, tmp_path / "out", ClipsConfig(), INLINE).rows
    assert len(rows) == 2
    for row in rows:
        assert (row.num_frames, row.num_samples) == (17, 44_100)
        assert (row.height, row.width, row.lag_ms) == (72, 120, 0)
        assert (tmp_path / "out" / row.file_name).stat().st_size == row.size_bytes
    table = pq.read_table(tmp_path / "out" / "clips.parquet")
    assert table["clip_id"].to_pylist() == [row.clip_id for row in rows]
    with (tmp_path / "out" / "clips.csv").open() as file:
        assert [row["digest"] for row in csv.DictReader(file)] == [row.digest for row in rows]


def test_running_again_makes_only_what_is_missing(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    rows = write_clips(manifest, out, ClipsConfig(), INLINE).rows
    first, second = (out / row.file_name for row in rows)
    before = second.stat().st_mtime_ns
    first.unlink()
    assert write_clips(manifest, out, ClipsConfig(), INLINE) == Written(rows, [])
    assert first.exists()
    assert second.stat().st_mtime_ns == before


def test_what_is_in_the_index_is_what_is_in_the_folder(manifest: Path, tmp_path: Path) -> None:
    root, out = Path(shutil.copytree(manifest, tmp_path / "m")), tmp_path / "out"
    both = write_clips(root, out, ClipsConfig(), INLINE).rows
    mine = (out / "clips" / "mine.mp4", out / "clips" / "ab" / "mine.mp4", out / "rows" / "a.json")
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    other = out / "failed" / f"{'0' * 32}.json"  # Of a manifest before.
    other.parent.mkdir(exist_ok=True)
    other.touch()
    (tmp_path / "first.yaml").write_text("rules: {late: start_s > 0}")
    select(root, tmp_path / "first.yaml")
    (kept,) = write_clips(root, out, ClipsConfig(), INLINE).rows
    assert kept in both
    assert {*out.glob("clips/**/*.mp4")} == {out / kept.file_name, *mine[:2]}
    assert {*out.glob("*/*.json")} == {out / "rows" / f"{kept.clip_id}.json", mine[2]}
    select(root, manifest.parent / "policy.yaml")
    assert write_clips(root, out, ClipsConfig(), INLINE).rows == both


def test_a_clip_is_read_from_any_name_of_its_source(manifest: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        shutil.copyfile(manifest.parent / "raw" / "a.mp4", raw / name)
    root, policy = tmp_path / "m", manifest.parent / "policy.yaml"
    ingest([raw], root, IngestConfig(num_frames=17), policy, INLINE)
    clip, shape = Manifest(root).clips()[0], ClipShape(17, 16, 72, 120)
    whole = clip_media(clip, shape, LocalCopies(1.0))
    (raw / "a.mp4").write_bytes(b"other bytes")
    (raw / "b.mp4").unlink()
    assert np.array_equal(clip_media(clip, shape, LocalCopies(1.0)).frames, whole.frames)
    (raw / "c.mp4").unlink()
    with pytest.raises(SourceLost, match=r"a\.mp4: changed since .* none of 2 other names"):
        clip_media(clip, shape, LocalCopies(1.0))


def test_what_cannot_be_written_or_read_costs_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too wide for an encoder, a source that is gone, a decoder that crashes."""
    raw, root, out = tmp_path / "raw", tmp_path / "m", tmp_path / "out"
    (tmp_path / "all.yaml").write_text(POLICY)
    raw.mkdir()
    for number, name in enumerate(("crash", "gone", "good", "wide")):
        width, aspect = (288, 60) if name == "wide" else (96, 1)
        pictures = [with_square(textured(number, 64, width), k, 20) for k in range(18)]
        coding = Coding(pixel_aspect=Fraction(aspect))
        write_movie(raw / f"{name}.mp4", pictures, times_at(16, 18), coding=coding)
    ingest([raw], root, IngestConfig(num_frames=17), tmp_path / "all.yaml", INLINE)
    shutil.move(raw / "gone.mp4", tmp_path / "gone.mp4")
    read = Decoders.read

    def crashing(self: Decoders, path: Path, *rest: Any) -> ClipMedia:
        if path.name == "crash.mp4":
            raise MediaError("decode", "decoder_crashed", "exit -11")
        return read(self, path, *rest)

    monkeypatch.setattr(Decoders, "read", crashing)
    config = ClipsConfig(max_failed_share=0.9)
    done = write_clips(root, out, config, INLINE)
    assert [Path(row.source).name for row in done.rows] == ["good.mp4"]
    why = {Path(row.source).stem: (row.stage, row.reason) for row in done.failed}
    assert why == {
        "crash": ("decode", "decoder_crashed"),
        "gone": ("read", "source_lost"),
        "wide": ("write", "refused"),
    }
    with (out / "failed.csv").open() as file:
        assert [row["clip_id"] for row in csv.DictReader(file)] == [
            row.clip_id for row in done.failed
        ]
    monkeypatch.undo()
    shutil.move(tmp_path / "gone.mp4", raw / "gone.mp4")
    again = write_clips(root, out, config, INLINE)
    assert {Path(row.source).stem for row in again.failed} == {"crash", "wide"}
    again = write_clips(root, out, dataclasses.replace(config, retry_failed=True), INLINE)
    assert {Path(row.source).stem for row in again.failed} == {"wide"}
    again = write_clips(root, out, dataclasses.replace(config, longer_side=96), INLINE)
    assert len(again.rows) == 4
    few = dataclasses.replace(config, max_failed_share=0.1)
    for path in raw.iterdir():
        path.unlink()
    with pytest.raises(RunError, match=r"gone since ingest.*max_failed_share = 0\.1"):
        write_clips(root, tmp_path / "other", few, INLINE)


def test_clips_are_decoded_by_children_within_limits(manifest: Path, tmp_path: Path) -> None:
    limits = DecodeLimits(deadline_s=1e-6)
    with pytest.raises(RunError, match=r"2 of 2 clips failed .*max_failed_share"):
        write_clips(manifest, tmp_path / "out", ClipsConfig(limits=limits), INLINE)


def test_odd_folders_are_folders(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for out in ("c:1", "-c"):
        old = Path(out) / "rows" / "1.json.tmp-0"
        old.parent.mkdir(parents=True)
        old.touch()
        os.utime(old, (0, 0))
        (Path(out) / "clips.json").touch()
        assert run("clips", manifest, f"--out={out}", "--inline", "--set", "longer_side=32") == 0
        assert len(list(Path(out).glob("clips/*/*.mp4"))) == 2
        assert not old.exists()


def test_other_settings_make_other_files(manifest: Path, tmp_path: Path) -> None:
    write_clips(manifest, tmp_path / "out", ClipsConfig(), INLINE)
    config = ClipsConfig(sound_codec="aac", longer_side=60, sample_rate=48_000)
    for row in write_clips(manifest, tmp_path / "out", config, INLINE).rows:
        assert (row.height, row.width, row.sound_codec) == (36, 60, "aac")
        assert 48_000 <= row.num_samples < 48_000 + 1024
        assert abs(row.lag_ms or 0.0) <= 1


def test_a_rate_that_the_codec_has_not_is_refused() -> None:
    ClipsConfig(sample_rate=192_000)
    with pytest.raises(ValueError, match=r"one of 7350, .*, 96000 with aac, not 192000"):
        ClipsConfig(sound_codec="aac", sample_rate=192_000)


def test_a_folder_of_other_things_is_left_alone(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        write_clips(manifest, tmp_path, ClipsConfig(), INLINE)
