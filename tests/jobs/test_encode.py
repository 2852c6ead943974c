import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from avdata.encoders.block_transform import OpenBlockTransform
from avdata.errors import RunError
from avdata.jobs.verify import verify
from avdata.pipeline.manifest import CaptionRow, Manifest
from avdata.pipeline.record import Captions
from avdata.pipeline.shards.dataset import Dataset, open_dataset, read_sample
from avdata.pipeline.shards.encode import encode_clips
from avdata.pipeline.shards.verify import verify_shards
from avdata.pipeline.sources.clips import clip_media
from avdata.pipeline.sources.copies import LocalCopies
from tests.encoders.checkpoints import oobleck
from tests.jobs.films import SMALL, chosen, encode, settings


@pytest.fixture(scope="module")
def default_shards(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Of the encoders without weights, at the default pace."""
    out = tmp_path_factory.mktemp("default-shards")
    assert encode(manifest, out, *SMALL) == 0
    return open_dataset(out)


def test_shards_carry_the_specs_and_the_settings(learned: Dataset, models: Path) -> None:
    assert learned.specs == chosen(models).specs()
    assert (learned.specs.video.name, learned.specs.video.channels) == ("wan", 48)
    assert verify_shards(learned, lambda _: None).problems == []
    written = json.loads((learned.root / "encode.json").read_text())["encoders"]
    assert written["video"]["path"] == str(models / "wan")
    assert written["audio"]["sample_seed"] is None


def test_samples_are_what_the_encoders_give(learned: Dataset, manifest: Path, models: Path) -> None:
    encoders = chosen(models).open(torch.device("cpu"))
    clips = {clip.clip_id: clip for clip in Manifest(manifest).clips("keep")}
    entries = [*learned.samples("train"), *learned.samples("val")]
    assert {entry.key for entry in entries} == set(clips)
    for entry in entries:
        clip, shape = clips[entry.key], learned.buckets[entry.bucket]
        media = clip_media(clip, shape, LocalCopies(1.0))
        (expected,) = encode_clips([clip], [media], shape, encoders)
        found = read_sample(learned.root, entry)
        for role in ("video", "audio", "video_text", "audio_text"):
            one, other = getattr(found, role), getattr(expected, role)
            np.testing.assert_allclose(one, other, atol=1e-3, rtol=1e-3)  # Stored as float16.
        captions = clips[entry.key].captions
        assert captions is not None
        (text,) = encoders.audio_text.encode([captions.audio])
        assert found.audio_text.shape == tuple(text.shape)


def test_other_weights_are_encoded_again(learned: Dataset, manifest: Path, models: Path) -> None:
    """Half a dataset of one encoder and half of another would be the worst of ends."""
    out = Path(shutil.copytree(learned.root, learned.root.with_name("again")))
    tars = sorted(out.glob("*/*.tar"))
    before = [(tar.read_bytes(), tar.stat().st_mtime_ns) for tar in tars]
    assert encode(manifest, out, *settings(models)) == 0
    assert [(tar.read_bytes(), tar.stat().st_mtime_ns) for tar in tars] == before
    other = Path(shutil.copytree(models, models.with_name("other")))
    oobleck(other / "oobleck" / "vae", seed=1)
    assert encode(manifest, out, *settings(other)) == 0
    assert all(tar.read_bytes() != old for tar, (old, _) in zip(tars, before, strict=True))
    found = open_dataset(out).specs
    assert found.video == learned.specs.video
    assert found.audio.digest != learned.specs.audio.digest


def test_missing_weights_are_one_line_before_anything_is_written(
    manifest: Path, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = [*settings(models), "--set", f"encoders.video.path={tmp_path / 'none'}"]
    assert encode(manifest, tmp_path / "out", *absent) == 2
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1
    assert "no such folder of weights" in said
    assert "hf download" in said
    assert not (tmp_path / "out").exists()


def same_files(one: Path, other: Path) -> None:
    tars = sorted(one.glob("*/*.tar"))
    assert tars
    for tar in tars:
        assert tar.read_bytes() == (other / tar.relative_to(one)).read_bytes()


@pytest.mark.parametrize(("batch_size", "ahead"), [(1, 0), (2, 1), (3, 0), (50, 50)])
def test_neither_the_batch_nor_what_is_decoded_ahead_alters_a_byte(
    manifest: Path, default_shards: Dataset, tmp_path: Path, batch_size: int, ahead: int
) -> None:
    pace = {"batch_size": batch_size, "decode_ahead": ahead, "decode_threads": 2}
    options = [x for name, value in pace.items() for x in ("--set", f"{name}={value}")]
    assert encode(manifest, tmp_path / "out", *options, *SMALL) == 0
    same_files(default_shards.root, tmp_path / "out")


def test_a_batch_of_a_learned_encoder_gives_the_same_to_rounding(
    learned: Dataset, manifest: Path, models: Path, tmp_path: Path
) -> None:
    """A convolution of many clips may add up in another order than that of one."""
    out = tmp_path / "out"
    assert encode(manifest, out, *settings(models), "--set", "batch_size=3") == 0
    again = {one.key: one for split in ("train", "val") for one in open_dataset(out).samples(split)}
    for split in ("train", "val"):
        for entry in learned.samples(split):
            alone, together = read_sample(learned.root, entry), read_sample(out, again[entry.key])
            for role in ("video", "audio"):
                one, other = getattr(alone, role), getattr(together, role)
                np.testing.assert_allclose(one, other, atol=1e-3, rtol=1e-3)
            for role in ("video_text", "audio_text"):
                np.testing.assert_array_equal(getattr(alone, role), getattr(together, role))


@pytest.mark.parametrize(("batch_size", "ahead"), [(1, 0), (4, 8)])
def test_a_source_that_is_gone_stops_the_job_and_leaves_no_shard(
    manifest: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    batch_size: int,
    ahead: int,
) -> None:
    film = Path(next(c.source.uri for c in Manifest(manifest).clips() if "two" in c.source.uri))
    pace = ["--set", f"batch_size={batch_size}", "--set", f"decode_ahead={ahead}"]
    away = film.rename(tmp_path / film.name)
    try:
        assert encode(manifest, tmp_path / "out", *SMALL, *pace) == 1
    finally:
        away.rename(film)
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "two.mp4: gone since ingest; run `avdata ingest` again" in said
    assert not (tmp_path / "out" / "dataset.json").exists()
    assert not [one for one in threading.enumerate() if one.name.startswith("ahead")]


def test_too_little_memory_of_the_device_names_what_to_set(
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(OpenBlockTransform, "encode", full)
    assert encode(manifest, tmp_path / "out", *SMALL, "--set", "batch_size=3") == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "Tried to allocate 2.00 GiB" in said
    for name in ("batch_size to less than 3", "encoders.video.tiled", "dtype=bfloat16"):
        assert name in said


@pytest.mark.parametrize(
    "setting", ["batch_size=0", "decode_threads=0", "decode_ahead=-1", "batch_size=many"]
)
def test_a_pace_that_cannot_be_is_refused(
    manifest: Path, tmp_path: Path, setting: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert encode(manifest, tmp_path / "out", "--set", setting) == 2
    assert setting.partition("=")[0] in capsys.readouterr().err


def test_captions_of_other_clips_than_the_manifests_are_found(
    default_shards: Dataset, manifest: Path, tmp_path: Path
) -> None:
    """What was encoded again would be the same."""
    assert verify(default_shards.root, manifest=manifest)["problems"] == 0
    true = Manifest(shutil.copytree(manifest, tmp_path / "true"))
    one, *rest = true.clips("keep")
    other = Captions("a cat sleeps", "purring", "m", "0")
    true.write_captions(
        [CaptionRow(c.clip_id, other if c == one else c.captions) for c in [one, *rest]]
    )
    true.reassemble()
    with pytest.raises(RunError) as caught:
        verify(default_shards.root, manifest=true.root)
    (line,) = str(caught.value).splitlines()[1:]
    assert line.endswith(f"{one.clip_id}: json: captions are not those of its clip in the manifest")


def test_some_samples_of_each_shard_are_decoded_back_and_indices_are_made_again_with_that(
    default_shards: Dataset, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(default_shards.root, copy)
    indices = {path: path.read_bytes() for path in copy.glob("*/*.index.json")}
    for _, index in default_shards.indices():
        tried = [one.round_trip for one in index.samples if one.round_trip is not None]
        assert len(tried) == min(2, len(index.samples))
        assert all(one["psnr_db"] is not None and one["psnr_db"] > 15 for one in tried)
    for path in indices:
        path.unlink()
    assert verify(copy, rebuild=True)["rebuilt"] == len(indices)
    assert {path: path.read_bytes() for path in indices} == indices
