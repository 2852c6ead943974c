import dataclasses
import os
import shutil
from pathlib import Path

import pytest

from avdata.errors import UsageError, YieldCollapsed
from avdata.jobs.caption import caption
from avdata.jobs.encode import EncodeConfig, encode
from avdata.jobs.engine import Engine
from avdata.jobs.ingest import ingest
from avdata.jobs.select import select
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.measure.source import IngestConfig
from avdata.pipeline.shards.dataset import open_dataset, read_sample
from avdata.pipeline.shards.verify import verify_shards
from tests.jobs.films import write_raw

INLINE = Engine(inline=True)
CONFIG = IngestConfig(num_frames=17)
SMALL = EncodeConfig(height=96, width=160)
BALL = ("ball.mp4", "ball.mkv")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good videos and two files that are none."""
    folder = write_raw(tmp_path_factory.mktemp("raw"), BALL)
    (folder / "notes.txt").write_text("no suffix of a video")
    return folder


@pytest.fixture
def manifest(measured: Path, tmp_path: Path) -> Manifest:
    return Manifest(Path(shutil.copytree(measured, tmp_path / "manifest")))


def assembled(manifest: Manifest) -> tuple[bytes, bytes]:
    return manifest.clips_file.read_bytes(), manifest.quarantine_file.read_bytes()


def parts(root: Path) -> dict[str, int]:
    found = [*root.glob("parts/*"), *root.glob("quarantine/*")]
    return {path.name: path.stat().st_mtime_ns for path in found}


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_every_file_is_in_clips_or_in_quarantine_with_its_reason(
    raw: Path, manifest: Manifest
) -> None:
    clips = {clip.source.uri for clip in manifest.clips()}
    reasons = {row.uri: row.reason for row in manifest.quarantined()}
    assert clips == {str(raw / name) for name in BALL}
    assert reasons == {str(raw / "empty.mp4"): "empty_file", str(raw / "text.mp4"): "not_media"}
    assert len(parts(manifest.root)) == 4
    assert not list(manifest.root.glob("digests/*"))


def test_a_good_clip_is_measured_and_kept(manifest: Manifest) -> None:
    kept = manifest.clips("keep")
    assert len(kept) == 4
    heard = {round(t + clip.start_s, 2) for clip in kept if clip.audio for t in clip.audio.onsets_s}
    assert heard == {0.75, 1.5}
    assert any(clip.labels.contact for clip in kept)


def test_the_progress_is_of_all_contents(
    raw: Path, manifest: Manifest, capsys: pytest.CaptureFixture[str]
) -> None:
    next((manifest.root / "parts").iterdir()).unlink()
    ingest([raw], manifest.root, CONFIG, engine=INLINE)
    assert "ingest 4/4" in capsys.readouterr().err


def test_running_again_measures_nothing_and_gives_the_same_bytes(
    raw: Path, manifest: Manifest
) -> None:
    bytes_before, parts_before = assembled(manifest), parts(manifest.root)
    ingest([raw], manifest.root, CONFIG, engine=INLINE)
    assert parts(manifest.root) == parts_before
    assert assembled(manifest) == bytes_before


def test_a_run_that_was_killed_half_way_is_finished_by_the_next(
    raw: Path, manifest: Manifest
) -> None:
    """What a kill leaves: some parts, a temporary file, nothing assembled."""
    before, kept = assembled(manifest), parts(manifest.root)
    lost = [*sorted(manifest.root.glob("parts/*"))[:1], *manifest.root.glob("quarantine/*")]
    for path in (*lost, manifest.clips_file, manifest.quarantine_file):
        path.unlink()
    (manifest.root / "parts" / "0.parquet.tmp-0").write_bytes(b"half a part")
    ingest([raw], manifest.root, CONFIG, engine=INLINE)
    assert assembled(manifest) == before
    again = parts(manifest.root)
    untouched = kept.keys() - {path.name for path in lost}
    assert {name: again[name] for name in untouched} == {name: kept[name] for name in untouched}


def test_a_file_that_changed_is_measured_again_and_a_new_one_too(
    raw: Path, manifest: Manifest, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(raw, tmp_path / "raw"))
    root = tmp_path / "m"
    first = ingest([folder], root, CONFIG, engine=INLINE)
    before = parts(root)
    (folder / "text.mp4").unlink()
    shutil.copyfile(folder / BALL[0], folder / "empty.mp4")
    ingest([folder], root, CONFIG, engine=INLINE)
    assert first.quarantined() == []
    # The same bytes as ball.mp4 under another name: nothing to measure, no clip, one name more.
    assert parts(root) == before
    assert len(first.clips()) == len(manifest.clips())
    names = {name for clip in first.clips() for name in clip.source.uris}
    assert names == {str(folder / name) for name in (*BALL, "empty.mp4")}


def test_a_corpus_that_moved_is_not_measured_again(
    raw: Path, manifest: Manifest, tmp_path: Path
) -> None:
    ids, before = {clip.clip_id for clip in manifest.clips()}, parts(manifest.root)
    folder = Path(shutil.copytree(raw, tmp_path / "elsewhere"))
    ingest([folder], manifest.root, CONFIG, engine=INLINE)
    assert parts(manifest.root) == before
    assert {clip.clip_id for clip in manifest.clips()} == ids
    assert {clip.source.uri for clip in manifest.clips()} == {str(folder / name) for name in BALL}


def test_names_with_the_same_bytes_are_measured_once_and_fail_one_by_one(
    raw: Path, tmp_path: Path
) -> None:
    for folder in ("a", "b"):
        shutil.copytree(raw, tmp_path / "raw" / folder)
    both = ingest([tmp_path / "raw"], tmp_path / "m", CONFIG, engine=INLINE)
    assert len(parts(both.root)) == 4
    assert len({clip.clip_id for clip in both.clips()}) == len(both.clips()) == 4
    assert [len(clip.source.uris) for clip in both.clips()] == [2] * 4
    failed = {(Path(row.uri).parent.name, row.reason) for row in both.quarantined()}
    assert failed == {(f, r) for f in ("a", "b") for r in ("empty_file", "not_media")}


def test_an_unchanged_file_is_not_read_again(raw: Path, tmp_path: Path) -> None:
    """Its bytes change behind the back of its name, size and time."""
    film = tmp_path / "film.mp4"
    shutil.copyfile(raw / BALL[0], film)
    before, stat = ingest([film], tmp_path / "m", CONFIG, engine=INLINE).digest(), film.stat()
    film.write_bytes(bytes(stat.st_size))
    os.utime(film, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert ingest([film], tmp_path / "m", CONFIG, engine=INLINE).digest() == before
    os.utime(film)
    with pytest.raises(YieldCollapsed, match="not_media"):
        ingest([film], tmp_path / "m", CONFIG, engine=INLINE)


def test_a_list_carries_its_columns_into_the_manifest(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"path,who\n{raw / BALL[0]},me\n{raw / 'gone.mp4'},you\n")
    listed = ingest([tmp_path / "list.csv"], tmp_path / "m", CONFIG, engine=INLINE)
    assert {clip.source.extra for clip in listed.clips()} == {'{"who": "me"}'}
    (gone,) = listed.quarantined()
    assert (gone.stage, gone.reason, gone.size_bytes) == ("list", "missing", None)


def test_a_policy_measures_nothing_and_a_clip_setting_everything(
    raw: Path, manifest: Manifest, tmp_path: Path
) -> None:
    before, late = parts(manifest.root), tmp_path / "late.yaml"
    late.write_text("name: late\nrules:\n  late: start_s > 0.5\n")
    ingest([raw], manifest.root, CONFIG, policy=late, engine=INLINE)
    assert parts(manifest.root) == before
    assert len(manifest.clips("keep")) == 2
    ids = {clip.clip_id for clip in manifest.clips()}
    ingest([raw], manifest.root, dataclasses.replace(CONFIG, fps=20), engine=INLINE)
    after = parts(manifest.root)
    assert len(after.keys() - before.keys()) == 4
    assert {name: after[name] for name in before} == before
    assert not ids & {clip.clip_id for clip in manifest.clips()}
    ingest([raw], manifest.root, CONFIG, engine=INLINE)
    assert parts(manifest.root) == after
    assert {clip.clip_id for clip in manifest.clips()} == ids


def test_a_touched_file_gives_the_same_clips(raw: Path, manifest: Manifest, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(raw, tmp_path / "raw"))
    one = ingest([folder / BALL[0]], tmp_path / "m", CONFIG, engine=INLINE)
    before = assembled(one)
    os.utime(folder / BALL[0], (1, 1))
    ingest([folder / BALL[0]], tmp_path / "m", CONFIG, engine=INLINE)
    assert assembled(one) == before
    assert {clip.clip_id for clip in one.clips()} < {clip.clip_id for clip in manifest.clips()}


def test_other_settings_never_meet_old_parts(raw: Path, manifest: Manifest) -> None:
    other = dataclasses.replace(CONFIG, num_frames=33)
    ingest([raw / BALL[0]], manifest.root, other, engine=INLINE)
    (clip,) = manifest.clips()
    assert clip.end_s - clip.start_s == pytest.approx(33 / 16)


def test_nothing_usable_is_a_collapse_that_names_a_reason(raw: Path, tmp_path: Path) -> None:
    bad = [raw / "empty.mp4", raw / "text.mp4"]
    with pytest.raises(YieldCollapsed, match=r"none of 2 sources.*empty\.mp4: empty_file"):
        ingest(bad, tmp_path / "m", CONFIG, engine=INLINE)
    assert {row.uri for row in Manifest(tmp_path / "m").quarantined()} == {str(one) for one in bad}


def test_a_path_that_is_not_there_is_named_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="missing"):
        ingest([tmp_path / "missing"], tmp_path / "m", CONFIG, engine=INLINE)
    assert not (tmp_path / "m").exists()


def test_from_raw_media_to_samples_twice_with_equal_bytes(
    manifest: Manifest, tmp_path: Path
) -> None:
    assert caption(manifest.root).captioned == 4
    captioned = assembled(manifest)
    caption(manifest.root)
    assert assembled(manifest) == captioned
    dataset = encode(manifest.root, tmp_path / "one", SMALL, INLINE)
    encode(manifest.root, tmp_path / "two", SMALL, INLINE)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    entries = [*dataset.samples("train"), *dataset.samples("val")]
    assert {entry.key for entry in entries} == {clip.clip_id for clip in manifest.clips("keep")}
    sample = read_sample(dataset.root, entries[0])
    assert sample.video.shape == dataset.specs.video.latent_shape(17, 96, 160)
    assert sample.meta["captions"]["video"]
    assert verify_shards(dataset, lambda _: None).problems == []
    # The two files hold the same film: no clip of one may be held out from the other by chance.
    assert {entry.source for entry in dataset.samples("val")} & {
        entry.source for entry in dataset.samples("train")
    } == set()


def test_encoding_again_writes_no_shard_and_one_that_was_lost(
    manifest: Manifest, tmp_path: Path
) -> None:
    caption(manifest.root)
    out = tmp_path / "shards"
    encode(manifest.root, out, SMALL, INLINE)
    before, times = tree(out), {p: p.stat().st_mtime_ns for p in out.rglob("*.tar")}
    encode(manifest.root, out, SMALL, INLINE)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.tar")} == times
    lost, *others = sorted(times)
    lost.unlink()
    encode(manifest.root, out, SMALL, INLINE)
    assert tree(out) == before
    assert all(path.stat().st_mtime_ns == times[path] for path in others)


def test_a_clip_that_is_dropped_later_leaves_the_shards(manifest: Manifest, tmp_path: Path) -> None:
    caption(manifest.root)
    out, late = tmp_path / "shards", tmp_path / "late.yaml"
    encode(manifest.root, out, SMALL, INLINE)
    late.write_text("name: late\nrules:\n  late: start_s > 0.5\n")
    assert select(manifest.root, late) == {"clips": 4, "keep": 2, "late": 2}
    encode(manifest.root, out, SMALL, INLINE)
    dataset = open_dataset(out)
    found = {entry.key for split in ("train", "val") for entry in dataset.samples(split)}
    assert found == {clip.clip_id for clip in manifest.clips("keep")}


def test_clips_without_captions_are_not_encoded(manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="avdata caption"):
        encode(manifest.root, tmp_path / "shards", SMALL, INLINE)
    assert not (tmp_path / "shards").exists()


def test_a_size_that_the_encoder_has_not_is_refused(manifest: Manifest, tmp_path: Path) -> None:
    caption(manifest.root)
    odd = dataclasses.replace(SMALL, width=150)
    with pytest.raises(UsageError, match="96x150"):
        encode(manifest.root, tmp_path / "shards", odd, INLINE)


@pytest.mark.filterwarnings("ignore")  # Ray warns of itself.
def test_ray_gives_the_same_bytes_as_one_process(
    raw: Path, manifest: Manifest, tmp_path: Path
) -> None:
    ray = Engine(workers=2)
    other = ingest([raw], tmp_path / "ray", CONFIG, engine=ray)
    assert assembled(other) == assembled(manifest)
    caption(manifest.root)
    caption(other.root)
    two_shards = dataclasses.replace(
        SMALL, plan=dataclasses.replace(SMALL.plan, samples_per_shard=1)
    )
    encode(manifest.root, tmp_path / "shards", two_shards, INLINE)
    encode(other.root, tmp_path / "ray-shards", two_shards, ray)
    assert tree(tmp_path / "ray-shards") == tree(tmp_path / "shards")
