"""`avdata encode` with encoders that have weights: tiny random checkpoints on disk."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from avdata.encoders.choice import EncodersConfig
from avdata.encoders.oobleck import OobleckAudio
from avdata.encoders.t5 import T5Text, UMT5Text
from avdata.encoders.wan import WanVideo
from avdata.jobs.caption import caption
from avdata.jobs.cli import app
from avdata.jobs.engine import Engine
from avdata.jobs.ingest import ingest
from avdata.jobs.shell import run_app
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.measure.source import IngestConfig
from avdata.pipeline.shards.dataset import Dataset, open_dataset, read_sample
from avdata.pipeline.shards.encode import encode_clip
from avdata.pipeline.shards.verify import verify_shards
from avdata.pipeline.sources.copies import LocalCopies
from tests.encoders.checkpoints import oobleck, t5, umt5, wan22
from tests.pipeline.media import Sound, bouncing_ball, clicks, times_at, write_movie


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Captioned clips of two films."""
    raw, root = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("manifest")
    pictures = bouncing_ball()
    for name, hits in (("one.mp4", [0.75, 1.5]), ("two.mp4", [0.5, 1.25])):
        sound = Sound(clicks(hits, 2.5))
        write_movie(raw / name, pictures, times_at(24, len(pictures)), sound)
    ingest([raw], root, IngestConfig(num_frames=17), engine=Engine(inline=True))
    caption(root)
    return root


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline like Wan's, a VAE like Oobleck's, an encoder like FLAN-T5's."""
    root = tmp_path_factory.mktemp("models")
    wan22(root / "wan" / "vae")
    umt5(root / "wan")
    oobleck(root / "oobleck" / "vae")
    t5(root / "t5")
    return root


def chosen(models: Path) -> EncodersConfig:
    return EncodersConfig(
        video=WanVideo(str(models / "wan")),
        audio=OobleckAudio(str(models / "oobleck")),
        video_text=UMT5Text(str(models / "wan")),
        audio_text=T5Text(str(models / "t5")),
    )


def settings(models: Path) -> list[str]:
    plain = {
        "video.kind": "wan",
        "video.path": models / "wan",
        "audio.kind": "oobleck",
        "audio.path": models / "oobleck",
        "video_text.kind": "umt5",
        "video_text.path": models / "wan",
        "audio_text.kind": "t5",
        "audio_text.path": models / "t5",
    }
    sizes = ["--set", "height=64", "--set", "width=96"]
    return [*sizes, *(x for k, v in plain.items() for x in ("--set", f"encoders.{k}={v}"))]


def encode(manifest: Path, out: Path, *options: str) -> int:
    command = ["encode", str(manifest), "--out", str(out), "--inline", *options]
    try:
        return run_app(app, command)
    except SystemExit as stop:
        return int(stop.code or 0)


@pytest.fixture(scope="module")
def shards(manifest: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("shards")
    assert encode(manifest, out, *settings(models)) == 0
    return open_dataset(out)


def test_shards_carry_the_specs_and_the_settings(shards: Dataset, models: Path) -> None:
    assert shards.specs == chosen(models).specs()
    assert (shards.specs.video.name, shards.specs.video.channels) == ("wan", 48)
    assert verify_shards(shards, lambda _: None).problems == []
    written = json.loads((shards.root / "encode.json").read_text())["encoders"]
    assert written["video"]["path"] == str(models / "wan")
    assert written["audio"]["sample_seed"] is None


def test_samples_are_what_the_encoders_give(shards: Dataset, manifest: Path, models: Path) -> None:
    encoders = chosen(models).open(torch.device("cpu"))
    clips = {clip.clip_id: clip for clip in Manifest(manifest).clips("keep")}
    entries = [*shards.samples("train"), *shards.samples("val")]
    assert {entry.key for entry in entries} == set(clips)
    for entry in entries:
        expected = encode_clip(clips[entry.key], shards.clip, encoders, LocalCopies(1.0))
        found = read_sample(shards.root, entry)
        for role in ("video", "audio", "video_text", "audio_text"):
            one, other = getattr(found, role), getattr(expected, role)
            np.testing.assert_allclose(one, other, atol=1e-3, rtol=1e-3)  # Stored as float16.
        captions = clips[entry.key].captions
        assert captions is not None
        (text,) = encoders.audio_text.encode([captions.audio])
        assert found.audio_text.shape == tuple(text.shape)


def test_other_weights_are_encoded_again(shards: Dataset, manifest: Path, models: Path) -> None:
    """Half a dataset of one encoder and half of another would be the worst of ends."""
    out = Path(shutil.copytree(shards.root, shards.root.with_name("again")))
    tars = sorted(out.glob("*/*.tar"))
    before = [(tar.read_bytes(), tar.stat().st_mtime_ns) for tar in tars]
    assert encode(manifest, out, *settings(models)) == 0
    assert [(tar.read_bytes(), tar.stat().st_mtime_ns) for tar in tars] == before
    other = Path(shutil.copytree(models, models.with_name("other")))
    oobleck(other / "oobleck" / "vae", seed=1)
    assert encode(manifest, out, *settings(other)) == 0
    assert all(tar.read_bytes() != old for tar, (old, _) in zip(tars, before, strict=True))
    found = open_dataset(out).specs
    assert found.video == shards.specs.video
    assert found.audio.digest != shards.specs.audio.digest


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
