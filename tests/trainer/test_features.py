"""What a run can be asked for: parts, precision, compilation, clips, other logs, forecasts."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avdata.encoders.choice import EncodersConfig
from avdata.errors import SpecMismatch, UsageError
from avdata.pipeline.media.clip import read_clip
from avdata.pipeline.shards.dataset import Dataset
from avdata.trainer import checkpoint
from avdata.trainer.batch import Batch
from avdata.trainer.flow import Losses, SamplerConfig, flow_loss
from avdata.trainer.group import joined
from avdata.trainer.loader import open_loader
from avdata.trainer.metrics import read_metrics
from avdata.trainer.model.avfulldit import AVFullDiT
from avdata.trainer.parallel import ParallelConfig
from avdata.trainer.run import Run, prepare
from avdata.trainer.schedule import ScheduleConfig
from avdata.trainer.train import train
from avdata.trainer.validate import HeldOut, errors
from tests.trainer.data.loaders import flip
from tests.trainer.processes import trained
from tests.trainer.shards import write_shards
from tests.trainer.test_exact import TRAIN as EXACT
from tests.trainer.tiny import CONFIG

TRAIN = dataclasses.replace(
    EXACT, steps=3, micro_batch_size=None, val_every=100, val_samples=2, checkpoint_every=100
)
FSDP = ParallelConfig("fsdp")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def plain(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return made(tmp_path_factory.mktemp("runs") / "plain", dataset)


def made(root: Path, dataset: Dataset, **changes: Any) -> Run:
    run = prepare(root, dataset.root, dataclasses.replace(TRAIN, **changes))
    train(run)
    return run


def column(run: Run, name: str) -> list[Any]:
    return [line[name] for line in read_metrics(run.metrics)]


@pytest.mark.parametrize("size", [1, 3])
def test_a_batch_in_parts_is_the_batch(
    size: int, dataset: Dataset, plain: Run, tmp_path: Path
) -> None:
    run = made(tmp_path / "run", dataset, micro_batch_size=size)
    for name in ("loss", "loss_video", "gradient_norm", "gradient_norm_audio"):
        np.testing.assert_allclose(column(run, name), column(plain, name), rtol=1e-4)
    assert column(run, "draws_digest") == column(plain, "draws_digest")


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bfloat16"},
        {"precision": "bfloat16", "parallel": FSDP},
        {"activation_checkpointing": True, "parallel": FSDP},
        pytest.param({"compile": "aot_eager"}, marks=pytest.mark.slow),
        {"compile": "aot_eager", "parallel": FSDP},
    ],
    ids=str,
)
def test_faster_ways_train_the_same_model(
    changes: dict[str, Any], dataset: Dataset, plain: Run, tmp_path: Path
) -> None:
    run = prepare(tmp_path / "run", dataset.root, dataclasses.replace(TRAIN, **changes))
    # In a process of its own: what compiles warns of itself.
    trained(run.root)
    rtol = 3e-2 if "precision" in changes else 1e-4
    for name in ("loss", "gradient_norm"):
        np.testing.assert_allclose(column(run, name), column(plain, name), rtol=rtol)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where inductor keeps what it has compiled."""
    return tmp_path_factory.mktemp("kernels")


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler on a CPU")
@pytest.mark.parametrize("parallel", [ParallelConfig(), FSDP], ids=["ddp", "fsdp"])
def test_layers_compiled_by_inductor_train_the_same_model(
    parallel: ParallelConfig, dataset: Dataset, plain: Run, kernels: Path, tmp_path: Path
) -> None:
    settings = dataclasses.replace(TRAIN, compile="inductor", parallel=parallel)
    run = prepare(tmp_path / "run", dataset.root, settings)
    command = [sys.executable, "-m", "avdata.trainer", str(run.root)]
    env = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(kernels)}
    subprocess.run(command, check=True, env=env)
    assert list(kernels.rglob("*.so"))
    for name in ("loss", "gradient_norm"):
        np.testing.assert_allclose(column(run, name), column(plain, name), rtol=1e-4)
    ours, theirs = (read_metrics(one.metrics)[-1] for one in (run, plain))
    for name in ("val_loss_video", "val_ema_loss_audio"):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-4)


def test_a_gradient_that_is_clipped_to_next_to_nothing_moves_nothing(
    dataset: Dataset, tmp_path: Path
) -> None:
    """Below what Adam adds to its denominators."""
    run = made(tmp_path / "run", dataset, steps=1, clip_norm=1e-12, weight_decay=0.0)
    begun, trained = (
        AVFullDiT.build(CONFIG, run.specs, run.clip, "t2av", run.config.seed) for _ in range(2)
    )
    with joined("cpu"):
        checkpoint.load_model(run, trained)
    torch.testing.assert_close(
        trained.state_dict(), begun.state_dict(), rtol=0, atol=1e-3 * run.config.learning_rate
    )


def test_what_is_measured_is_of_one_piece(plain: Run) -> None:
    for line in read_metrics(plain.metrics):
        seats = np.array(line["seats_by_time"])
        assert seats.sum() in (2, 4)
        for name in ("video", "audio"):
            by_time = np.array([one or 0.0 for one in line[f"loss_{name}_by_time"]])
            if name == "video":
                total = (by_time * seats).sum() / seats.sum()
                assert total == pytest.approx(line["loss_video"], rel=1e-5)
        towers = [line[f"gradient_norm_{name}"] for name in ("video", "audio", "joints")]
        assert np.linalg.norm(towers) == pytest.approx(line["gradient_norm"], rel=1e-5)
        assert line["tflops_per_device"] > 0
        assert line["mfu"] is None
        assert 0 <= line["data_wait_share"] <= 1
        assert 0 <= line["checkpoint_stall_share"] < 1
        assert line["tokens_per_second"] > line["samples_per_second"] > 0
        assert line["memory_gib"] > 0


def test_mfu_is_what_is_achieved_of_the_peak(dataset: Dataset, tmp_path: Path) -> None:
    run = made(tmp_path / "run", dataset, peak_tflops=0.5)
    for line in read_metrics(run.metrics):
        assert line["mfu"] == pytest.approx(line["tflops_per_device"] / 0.5)
        per_clip = line["tflops_per_device"] * line["seconds"] * 1e12
        per_clip /= line["samples_per_second"] * line["seconds"]
        assert per_clip > 1e6


def test_validation_is_told_by_time_bucket_and_subset_raw_and_averaged(plain: Run) -> None:
    (line,) = (one for one in read_metrics(plain.metrics) if "validation" in one)
    assert line["val_loss_video"] != line["val_ema_loss_video"]
    for weights in ("raw", "ema"):
        told = line["validation"][weights]
        times = told["by_time"].values()
        assert np.mean([one["video"] for one in times]) == pytest.approx(told["video"])
        buckets = told["by_bucket"].values()
        assert sum(one["samples"] for one in buckets) == told["samples"] == 2
        assert all(set(one) == {"samples", "video", "audio"} for one in buckets)
        assert "contact" in told["by_subset"]


def test_damaged_held_out_samples_are_listed_and_left_out_on_all_processes(tmp_path: Path) -> None:
    dataset = write_shards(tmp_path / "shards", specs=EncodersConfig().specs())
    flip(dataset, "video.npy", most=1, split="val")
    count = len(dataset.samples("val"))
    settings = dataclasses.replace(
        TRAIN,
        steps=1,
        val_samples=9,
        sample_every=1,
        sample_count=9,
        sampler=SamplerConfig(steps=1),
    )
    run = prepare(tmp_path / "run", dataset.root, settings)
    trained(run.root, 2)
    (line,) = read_metrics(run.metrics)
    for weights in ("raw", "ema"):
        told = line["validation"][weights]
        assert (told["samples"], told["damaged"]) == (count - 1, 1)
        assert np.isfinite(told["video"])
    assert len(line["samples"]) == 2 * (count - 1)
    assert all((run.root / "samples" / name).exists() for name in line["samples"])
    assert len((run.root / "quarantine.jsonl").read_text().splitlines()) == 1


def test_what_is_sound_is_measured_as_if_nothing_were_damaged(tmp_path: Path) -> None:
    dataset = write_shards(tmp_path / "shards")
    run = prepare(tmp_path / "run", dataset.root, TRAIN)
    model = AVFullDiT.build(CONFIG, run.specs, run.clip, "t2av", 5)

    def loss(model: Any, batch: Batch, t: Any) -> Losses:
        return flow_loss(model, batch.video, batch.audio, t, batch.share)

    def measured() -> dict[str, list[float]]:
        with joined("cpu") as group:
            loader = open_loader(dataset.root, TRAIN, group)
            held_out = HeldOut(loader.held_out(9), loader.reader, 2)
            found, entries = errors(model, loss, held_out, group)
        return {one.key: row.flatten().tolist() for one, row in zip(entries, found, strict=True)}

    whole = measured()
    assert set(flip(dataset, "audio.npy", split="val")) == set(whole)
    assert measured() == {}
    (kept, *_) = flip(dataset, "audio.npy", most=1, split="val")
    assert measured() == {kept: whole[kept]}


def test_averages_are_loaded_where_they_are_asked_for(
    dataset: Dataset, plain: Run, tmp_path: Path
) -> None:
    models = {}
    for weights in ("raw", "ema"):
        model = AVFullDiT.build(CONFIG, plain.specs, plain.clip, "t2av", 5)
        with joined("cpu"):
            assert checkpoint.load_model(plain, model, weights) == TRAIN.steps
        models[weights] = model.state_dict()
    first = AVFullDiT.build(CONFIG, plain.specs, plain.clip, "t2av", TRAIN.seed).state_dict()
    name = "video.wan.blocks.0.attn1.to_q.weight"
    moved = (models["raw"][name] - first[name]).norm()
    assert 0 < (models["ema"][name] - first[name]).norm() < moved
    bare = made(tmp_path / "bare", dataset, ema_decay=None)
    with pytest.raises(UsageError, match="ema_decay is none"), joined("cpu"):
        checkpoint.load_model(bare, model, "ema")


@pytest.mark.parametrize("parallel", [ParallelConfig(), FSDP], ids=["ddp", "fsdp"])
def test_clips_with_sound_are_made_while_it_trains(
    parallel: ParallelConfig, tmp_path: Path
) -> None:
    """And neither they nor validation change a bit of the training."""
    dataset = write_shards(tmp_path / "shards", specs=EncodersConfig().specs())
    settings = dataclasses.replace(TRAIN, parallel=parallel)
    alone = prepare(tmp_path / "alone", dataset.root, settings)
    settings = dataclasses.replace(
        settings, sample_every=2, sample_count=3, val_every=1, sampler=SamplerConfig(steps=2)
    )
    run = prepare(tmp_path / "run", dataset.root, settings)
    for one in (alone, run):
        trained(one.root, 2)
    for name in ("loss", "gradient_norm"):
        assert column(run, name) == column(alone, name)
    made = [name for line in read_metrics(run.metrics) for name in line.get("samples", [])]
    assert len(made) == len(set(made)) == 12  # Steps 2 and 3, raw and averaged, three clips.
    for name in made:
        told = json.loads((run.root / "samples" / name).with_suffix(".json").read_text())
        assert told["captions"] == {"video": "a ball", "audio": "a hit"}
        shorter = dataclasses.replace(run.clip, num_frames=5)  # There is sound for so many.
        clip = read_clip(run.root / "samples" / name, 0.0, shorter)
        assert np.abs(clip.samples).max() > 0


def test_clips_need_the_encoders_of_the_shards(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(SpecMismatch, match="video encoder"):
        made(tmp_path / "run", dataset, sample_every=2)


def test_a_run_is_not_prolonged_where_its_rate_has_begun_to_fall(
    dataset: Dataset, tmp_path: Path
) -> None:
    schedule = ScheduleConfig("wsd", decay_share=0.5)
    run = made(tmp_path / "run", dataset, schedule=schedule, steps=4, warmup_steps=1)
    rates = column(run, "learning_rate")
    assert rates[0] == rates[1] == rates[2] > rates[3]
    with pytest.raises(UsageError, match="has begun to fall"):
        made(run.root, dataset, schedule=schedule, steps=8, warmup_steps=1)
