import csv
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from avdata.encoders.spec import ClipShape
from avdata.errors import SourceLost, UsageError
from avdata.jobs.clips import ClipsConfig, write_clips
from avdata.jobs.engine import Engine
from avdata.jobs.ingest import ingest
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.measure.source import IngestConfig
from avdata.pipeline.media.write import write_mp4
from avdata.pipeline.sources.clips import clip_media
from avdata.pipeline.sources.copies import LocalCopies
from tests.pipeline.media import clicks, textured, with_square

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
    rows = write_clips(manifest, tmp_path / "out", ClipsConfig(), INLINE)
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
    rows = write_clips(manifest, out, ClipsConfig(), INLINE)
    first, second = (out / row.file_name for row in rows)
    before = second.stat().st_mtime_ns
    first.unlink()
    assert write_clips(manifest, out, ClipsConfig(), INLINE) == rows
    assert first.exists()
    assert second.stat().st_mtime_ns == before


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


def test_other_settings_make_other_files(manifest: Path, tmp_path: Path) -> None:
    write_clips(manifest, tmp_path / "out", ClipsConfig(), INLINE)
    config = ClipsConfig(sound_codec="aac", longer_side=60, sample_rate=48_000)
    for row in write_clips(manifest, tmp_path / "out", config, INLINE):
        assert (row.height, row.width, row.sound_codec) == (36, 60, "aac")
        assert 48_000 <= row.num_samples < 48_000 + 1024
        assert abs(row.lag_ms or 0.0) <= 1


def test_a_folder_of_other_things_is_left_alone(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        write_clips(manifest, tmp_path, ClipsConfig(), INLINE)
