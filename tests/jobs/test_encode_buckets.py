"""`avdata encode` into several buckets, and of clips that cannot be decoded."""

import dataclasses
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avdata.errors import MediaError, YieldCollapsed
from avdata.jobs import encode as job
from avdata.jobs.caption import caption
from avdata.jobs.encode import EncodeConfig
from avdata.jobs.engine import Engine
from avdata.jobs.ingest import ingest
from avdata.jobs.verify import verify
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.measure.source import IngestConfig
from avdata.pipeline.media.clip import read_clip
from avdata.pipeline.media.geometry import Fit
from avdata.pipeline.shards.dataset import Dataset, open_dataset, read_sample
from avdata.pipeline.shards.decoders import DecodeLimits, Decoders
from tests.jobs.films import SMALL, encode
from tests.pipeline.media import Sound, clicks, textured, times_at, write_movie
from tests.pipeline.test_child import children

INLINE = Engine(inline=True)
SIZES = ["--set", "sizes=[[64, 96], [96, 64]]"]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Captioned clips of 33 frames, of a film that lies and one that stands."""
    root = tmp_path_factory.mktemp("shapes")
    (root / "raw").mkdir()
    for number, size in enumerate([(96, 160), (160, 96)]):
        pictures = [np.roll(textured(number, *size), 3 * k, axis=1) for k in range(54)]
        sound = Sound(clicks([0.5 + number / 4, 1.5], 2.3))
        write_movie(root / "raw" / f"{number}.mp4", pictures, times_at(24, 54), sound)
    policy = root / "policy.yaml"
    policy.write_text("name: all\nrules: {}\n")
    ingest([root / "raw"], root / "manifest", IngestConfig(), policy, INLINE)
    caption(root / "manifest")
    return root / "manifest"


def everything(dataset: Dataset) -> dict[str, str]:
    """Bucket by clip."""
    entries = [one for split in ("train", "val") for one in dataset.samples(split)]
    return {entry.key: entry.bucket for entry in entries}


def test_each_clip_goes_where_its_shape_is(shapes: Path, tmp_path: Path) -> None:
    assert encode(shapes, tmp_path / "out", *SIZES) == 0
    dataset = open_dataset(tmp_path / "out")
    assert set(dataset.buckets) == {"33x64x96", "33x96x64"}
    clips = {clip.clip_id: clip for clip in Manifest(shapes).clips("keep")}
    for key, bucket in everything(dataset).items():
        lies = clips[key].media.width > clips[key].media.height
        assert bucket == ("33x64x96" if lies else "33x96x64")
    assert verify(dataset.root)["samples"] == len(clips) == 2
    for entry in dataset.samples("train"):
        shape = dataset.buckets[entry.bucket]
        wanted = dataset.specs.video.latent_shape(shape.num_frames, shape.height, shape.width)
        assert read_sample(dataset.root, entry).video.shape == wanted


def test_shorter_buckets_take_the_beginning(shapes: Path, tmp_path: Path) -> None:
    """A causal encoder gives the first latents of the whole."""
    assert encode(shapes, tmp_path / "whole", *SMALL) == 0
    assert encode(shapes, tmp_path / "part", *SMALL, "--set", "num_frames=[17, 65]") == 0
    whole, part = open_dataset(tmp_path / "whole"), open_dataset(tmp_path / "part")
    assert set(part.buckets) == {"17x64x96"}
    places = {e.key: e for split in ("train", "val") for e in whole.samples(split)}
    for entry in part.samples("train"):
        one, other = read_sample(part.root, entry), read_sample(whole.root, places[entry.key])
        beginning = other.video[:, : one.video.shape[1]]
        np.testing.assert_allclose(one.video, beginning, atol=2e-3)  # Other sizes, other sums.
        assert one.meta["end_s"] - one.meta["start_s"] == pytest.approx(17 / 16)
        kept = [event for event in other.meta["events"] if event["t"] < 17 / 16]
        assert one.meta["events"] == kept
        assert one.audio.shape[1] == part.specs.audio.latent_length(44_100)


def test_another_fit_is_another_picture_and_another_shard(shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fits: list[Fit] = [Fit("crop"), Fit("pad")]
    for fit in fits:
        assert encode(shapes, out, *SMALL, "--set", f"fit.how={fit.how}") == 0
        entry = open_dataset(out).samples("train")[0]
        clip = next(c for c in Manifest(shapes).clips() if c.clip_id == entry.key)
        shape, encoders = open_dataset(out).buckets[entry.bucket], EncodeConfig().encoders
        media = read_clip(Path(clip.source.uri), clip.start_s, shape, fit=fit)
        frames = torch.from_numpy(media.frames)[None]
        wanted = encoders.open(torch.device("cpu")).video.encode(frames)[0].numpy()
        found = read_sample(out, entry).video
        np.testing.assert_array_equal(found, wanted.astype(np.float16))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("preset=paper-5s", "81 frames at 16 fps need 5.000 s"),
        ("preset=huge", "preset must be one of paper, paper-2s"),
        ("height=64", "height and width must be given together"),
        ("sizes=[[64, 90]]", "width = 90 is not a multiple of 16"),
        ("num_frames=[32]", "frames - 1 = 31 is not a multiple of 4"),
        ("fit.how=squeeze", "fit.how"),
        ("limits.deadline_s=0", "deadline_s must be positive"),
    ],
)
def test_a_geometry_that_cannot_be_is_one_line(
    shapes: Path, tmp_path: Path, setting: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert encode(shapes, tmp_path / "out", "--set", setting) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_clip_whose_decoding_crashes_is_left_out_with_its_reason(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever comes after is encoded; what is said of it stands in index and list."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    settings = EncodeConfig(height=64, width=96, limits=DecodeLimits(deadline_s=3.0))
    reads: list[float] = []
    real = Decoders.read

    def halted_once(self: Decoders, *request: Any) -> object:
        if not reads:
            reads.append(0.0)
            before = children()
            real(self, *request)
            (pid,) = children() - before
            os.kill(pid, signal.SIGSTOP)
        return real(self, *request)

    with monkeypatch.context() as patch:
        patch.setattr(Decoders, "read", halted_once)
        dataset = job.encode(shapes, out, settings, INLINE)
    (lost,) = (one for failed in dataset.failed.values() for one in failed)
    assert (lost["stage"], lost["reason"]) == ("deadline", "took_too_long")
    assert dataset.num_failed == 1
    assert lost["key"] not in everything(dataset)
    assert verify(out)["samples"] == 1
    listed = [out / f"{shard['name']}.index.json" for shard in dataset.shards]
    before = {path: path.read_bytes() for path in listed}
    for path in before:
        path.unlink()
    verify(out, rebuild=True)
    assert {path: path.read_bytes() for path in before} == before
    # Time may have been short: it is tried again, and then all is as ever.
    assert job.encode(shapes, out, settings, INLINE).num_failed == 0
    job.encode(shapes, whole, settings, INLINE)
    tars = {p.name: p.read_bytes() for p in whole.glob("*/*.tar")}
    assert {p.name: p.read_bytes() for p in out.glob("*/*.tar")} == tars


def only(monkeypatch: pytest.MonkeyPatch, error: MediaError, number: int) -> None:
    """Decoding fails for the first clips that are asked for, so many."""
    reads: list[float] = []
    real = Decoders.read

    def read(self: Decoders, *request: Any) -> object:
        reads.append(0.0)
        if len(reads) <= number:
            raise error
        return real(self, *request)

    monkeypatch.setattr(Decoders, "read", read)


@pytest.mark.parametrize(("stage", "again"), [("memory", 0), ("deadline", 0), ("decode", 1)])
def test_what_may_pass_is_tried_again_and_the_rest_when_asked(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, again: int
) -> None:
    settings = EncodeConfig(height=64, width=96)
    only(monkeypatch, MediaError(stage, "failed"), 1)
    assert job.encode(shapes, tmp_path / "out", settings, INLINE).num_failed == 1
    assert job.encode(shapes, tmp_path / "out", settings, INLINE).num_failed == again
    asked = dataclasses.replace(settings, retry_failed=True)
    assert job.encode(shapes, tmp_path / "out", asked, INLINE).num_failed == 0


def test_a_clip_that_never_passes_leaves_a_dataset(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        with monkeypatch.context() as patch:
            only(patch, MediaError("memory", "killed"), 1)
            dataset = job.encode(
                shapes, tmp_path / "out", EncodeConfig(height=64, width=96), INLINE
            )
        assert dataset.num_failed == 1


def test_a_corpus_that_cannot_be_decoded_at_all_is_no_dataset(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> object:
        raise MediaError("decode", "decoder_crashed", "exit -11")

    monkeypatch.setattr(Decoders, "read", never)
    with pytest.raises(YieldCollapsed, match="none of 2 clips could be decoded"):
        job.encode(shapes, tmp_path / "out", EncodeConfig(height=64, width=96), INLINE)
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_a_file_that_was_replaced_is_not_encoded(shapes: Path, tmp_path: Path) -> None:
    """It decodes, and is another clip."""
    raw = shapes.parent / "raw"
    kept = shutil.copyfile(raw / "0.mp4", tmp_path / "kept.mp4")
    try:
        shutil.copyfile(raw / "1.mp4", raw / "0.mp4")
        with pytest.raises(Exception, match=r"0\.mp4: changed since ingest"):
            job.encode(shapes, tmp_path / "out", EncodeConfig(height=64, width=96), INLINE)
    finally:
        shutil.copyfile(kept, raw / "0.mp4")
    assert not (tmp_path / "out" / "dataset.json").exists()
