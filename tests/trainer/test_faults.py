"""What goes wrong with the clips of a run: numbers that are none, samples that cannot be read."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from avdata import storage
from avdata.errors import RunError
from avdata.pipeline.shards.dataset import Dataset, open_dataset
from avdata.pipeline.shards.index import (
    index_path,
    member_digest,
    read_index,
    tar_path,
    write_index,
)
from avdata.trainer import checkpoint
from avdata.trainer.data.config import DataConfig, ReadConfig
from avdata.trainer.metrics import read_metrics
from avdata.trainer.parallel import ParallelConfig
from avdata.trainer.train import train
from tests.trainer.data.loaders import a_loader, flip
from tests.trainer.processes import ended, start
from tests.trainer.shards import write_shards
from tests.trainer.test_exact import made, tensors

PATIENT = DataConfig(read=ReadConfig(max_bad_samples=1000, max_bad_share=1.0))


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, str]:
    """Shards that hold together, and a training clip in them whose latents are not finite."""
    root = tmp_path_factory.mktemp("poisoned")
    dataset = write_shards(root)
    listed = json.loads((root / "dataset.json").read_text())
    shard = next(one for one in listed["shards"] if one["split"] == "train")
    index = read_index(index_path(root, shard["name"]))
    sample = index.samples[0]
    member = sample.members["video.npy"]
    with tar_path(root, shard["name"]).open("r+b") as tar:
        tar.seek(member.offset)
        data = tar.read(member.length)[:-2] + np.float16(np.nan).tobytes()
        tar.seek(member.offset)
        tar.write(data)
    sample.members["video.npy"] = dataclasses.replace(member, digest=member_digest(data))
    write_index(index_path(root, shard["name"]), index)
    shard["index_digest"] = storage.digest_file(index_path(root, shard["name"]))
    (root / "dataset.json").write_text(json.dumps(listed))
    return open_dataset(dataset.root), sample.key


def seed_with(dataset: Dataset, key: str, size: int, step: int) -> int:
    """One whose order has the sample last in that batch, after what is first in batches of one."""
    for seed in itertools.count():
        alone, among = (a_loader(dataset.root, batch_size=one, seed=seed) for one in (1, size))
        if among.keys(step) == [*alone.keys(0), key][-size:]:
            return seed
    raise AssertionError


def test_a_clip_that_is_not_finite_is_named_and_stops_the_run(
    poisoned: tuple[Dataset, str], tmp_path: Path
) -> None:
    dataset, clip = poisoned
    run = made(tmp_path / "run", dataset)
    with pytest.raises(RunError, match=rf"step \d has loss nan .* of clips {clip}; .*not applied"):
        train(run)
    assert all(line["loss"] is not None for line in read_metrics(run.metrics))


@pytest.mark.parametrize("parallel", [ParallelConfig(), ParallelConfig("fsdp")], ids=str)
def test_a_skipped_batch_is_never_applied(
    parallel: ParallelConfig, poisoned: tuple[Dataset, str], tmp_path: Path
) -> None:
    """After the step before it and after itself: the same weights, moments, averages."""
    dataset, clip = poisoned
    settings = {"not_finite": "skip", "parallel": parallel, "val_every": 100}
    run = made(
        tmp_path / "run", dataset, steps=4, keep_checkpoints=9, checkpoint_every=1, **settings
    )
    assert ended(start(run.root, 2)) == [0, 0]
    lines = read_metrics(run.metrics)
    skipped = [line for line in lines if line.get("skipped")]
    assert len(skipped) < len(lines) == 4
    for line in skipped:
        assert line["broken_clips"] == [clip]
        assert line["loss"] is None
    assert all(np.isfinite(line["loss"]) for line in lines if line not in skipped)
    step = next(line["step"] for line in skipped if line["step"] > 1)
    found = [tensors(run, tmp_path / f"{one}.pt", one) for one in (step - 1, step)]
    for name, one in found[0].items():
        if name.startswith(("/model/", "/optimizer/state/", "/ema/")):
            assert one.equal(found[1][name]), name


def test_too_many_skipped_in_a_row_stop_the_run(tmp_path: Path) -> None:
    dataset = write_shards(tmp_path / "shards")
    run = made(
        tmp_path / "run",
        dataset,
        learning_rate=1e30,
        warmup_steps=0,
        not_finite="skip",
        most_skipped=2,
        checkpoint_every=100,
    )
    with pytest.raises(RunError, match=r"of the batch of|of clips"):
        train(run)
    assert [line.get("skipped", False) for line in read_metrics(run.metrics)][-2:] == [True, True]
    assert checkpoint.latest(run) is None


def test_a_batch_of_which_nothing_can_be_read_is_passed_over(tmp_path: Path) -> None:
    dataset = write_shards(tmp_path / "shards")
    settings = {"batch_size": 1, "data": PATIENT, "keep_checkpoints": 9, "checkpoint_every": 1}
    (damaged,) = flip(dataset, "video.npy", most=1)
    run = made(
        tmp_path / "run", dataset, steps=3, seed=seed_with(dataset, damaged, 1, step=1), **settings
    )
    assert train(run) == 3
    lines = read_metrics(run.metrics)
    assert [line["read_share"] for line in lines] == [1, 0, 1]
    assert [line.get("skipped", False) for line in lines] == [False, True, False]
    assert [line["loss_video"] is None for line in lines] == [False, True, False]
    found = [tensors(run, tmp_path / f"{step}.pt", step) for step in (1, 2)]
    assert all(one.equal(found[1][name]) for name, one in found[0].items() if "/model/" in name)


def test_too_many_batches_in_a_row_of_which_nothing_can_be_read_stop_the_run(
    tmp_path: Path,
) -> None:
    dataset = write_shards(tmp_path / "shards")
    run = made(tmp_path / "run", dataset, data=PATIENT, most_skipped=2)
    for tar in dataset.root.glob("*/train-*.tar"):
        tar.unlink()
    with pytest.raises(RunError, match="step 3: none of its samples could be read"):
        train(run)
    assert [line["skipped"] for line in read_metrics(run.metrics)] == [True, True]


def test_a_batch_of_which_a_part_cannot_be_read_is_the_batch_of_the_rest(tmp_path: Path) -> None:
    """Loss, gradient and what is learned are those of the samples that are there."""
    dataset = write_shards(tmp_path / "shards")
    (damaged,) = flip(dataset, "video.npy", most=1)
    settings = {"steps": 1, "data": PATIENT, "seed": seed_with(dataset, damaged, 2, step=0)}
    alone = made(tmp_path / "alone", dataset, batch_size=1, **settings)
    rest = made(tmp_path / "rest", dataset, batch_size=2, micro_batch_size=1, **settings)
    train(alone)
    train(rest)
    (wanted,), (found,) = read_metrics(alone.metrics), read_metrics(rest.metrics)
    assert (wanted["read_share"], found["read_share"]) == (1, 0.5)
    for name in ("loss", "loss_video", "loss_audio", "gradient_norm", "gradient_norm_video"):
        assert found[name] == pytest.approx(wanted[name], rel=1e-5)
    assert found["seats_by_time"] == wanted["seats_by_time"]
