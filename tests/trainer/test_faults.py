"""What goes wrong while a run trains: numbers that are none, full disks, too little time."""

import dataclasses
import errno
import itertools
import json
import os
import runpy
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avdata import storage
from avdata.errors import RunError, UsageError
from avdata.pipeline.shards.dataset import Dataset, open_dataset
from avdata.pipeline.shards.index import (
    index_path,
    member_digest,
    read_index,
    tar_path,
    write_index,
)
from avdata.trainer import checkpoint, lock, stop
from avdata.trainer.data.config import DataConfig, ReadConfig
from avdata.trainer.group import joined
from avdata.trainer.metrics import read_metrics
from avdata.trainer.parallel import ParallelConfig
from avdata.trainer.run import Run, prepare
from avdata.trainer.train import train
from tests.trainer.data.loaders import a_loader, flip
from tests.trainer.processes import ended, killed, start
from tests.trainer.shards import write_shards
from tests.trainer.test_exact import TRAIN, tensors, wait_for_checkpoint

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


def made(root: Path, dataset: Dataset, **changes: Any) -> Run:
    return prepare(root, dataset.root, dataclasses.replace(TRAIN, **{"val_samples": 0, **changes}))


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


def test_a_disk_that_fills_up_costs_checkpoints_and_never_the_last_good_one(
    tmp_path: Path,
) -> None:
    """The kernel refuses to let any file grow beyond the limit, as it does on a full disk."""
    dataset = write_shards(tmp_path / "shards")
    run = made(tmp_path / "run", dataset, steps=4)
    assert ended(start(run.root, 2)) == [0, 0]
    before = tensors(run, tmp_path / "before.pt")
    run = made(run.root, dataset, steps=9, allowed_checkpoint_failures=1)
    codes = ended(start(run.root, 2, file_limit=30_000))
    said = (run.root / "stderr-0.txt").read_text()
    assert "step-00000006: not written (" in said
    assert codes == [1, 1]
    assert "could not be written" in said
    # It trained on after the first one that could not be written.
    assert read_metrics(run.metrics)[-1]["step"] > 6
    assert checkpoint.latest(run) == 4
    after = tensors(run, tmp_path / "after.pt")
    assert all(after[name].equal(one) for name, one in before.items() if "/model/" in name)
    assert not list(run.checkpoints.glob("*.tmp"))
    # With room again it goes on from there.
    assert ended(start(run.root, 2)) == [0, 0]
    assert checkpoint.latest(run) == 9


def test_checkpoints_that_cannot_be_committed_stop_the_run_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = write_shards(tmp_path / "shards")
    settings = {"checkpoint_every": 1, "background_checkpoints": False, "val_every": 100}
    run = made(tmp_path / "run", dataset, allowed_checkpoint_failures=1, **settings)
    write = storage.write_json

    def full(path: Path, value: Any) -> None:
        if path.name == checkpoint.FACTS:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, value)

    monkeypatch.setattr(storage, "write_json", full)
    with pytest.raises(RunError, match="could not be written any more"):
        train(run)
    assert len(read_metrics(run.metrics)) == 3  # Two failed; the step after them says so.
    assert checkpoint.latest(run) is None


def test_a_last_checkpoint_that_cannot_be_committed_is_an_error_of_every_process(
    tmp_path: Path,
) -> None:
    dataset = write_shards(tmp_path / "shards")
    run = made(tmp_path / "run", dataset, steps=2, val_every=100)
    run.checkpoints.mkdir()
    (run.checkpoints / "step-00000002").write_text("of somebody else")
    assert ended(start(run.root, 2)) == [1, 1]
    for rank in range(2):
        said = (run.root / f"stderr-{rank}.txt").read_text()
        assert "step-00000002: could not be written; make room" in said


def test_an_old_checkpoint_that_cannot_be_removed_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = write_shards(tmp_path / "shards")
    settings = {"keep_checkpoints": 1, "checkpoint_every": 1, "val_every": 100}
    run = made(tmp_path / "run", dataset, steps=2, allowed_checkpoint_failures=0, **settings)

    def busy(folder: Path) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(folder))

    monkeypatch.setattr(shutil, "rmtree", busy)
    assert train(run) == 2
    assert checkpoint.latest(run) == 2
    said = capsys.readouterr().err
    assert "step-00000001: an old checkpoint that cannot be removed" in said
    assert "not written" not in said


def test_a_run_is_trained_by_one_command_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second one leaves the files alone, and goes on once the first has ended."""
    dataset = write_shards(tmp_path / "shards")
    root, often = tmp_path / "run", {"val_every": 10**6, "checkpoint_every": 1}
    first = start(made(root, dataset, steps=10**6, **often).root)
    run = made(root, dataset, steps=10**6, **often)
    wait_for_checkpoint(run, 2)
    os.kill(first[0].pid or 0, signal.SIGSTOP)
    try:
        written = root / "checkpoints" / "step-00999999.tmp"
        written.mkdir()
        last = (checkpoint.latest(run) or 0) + 4
        run = made(root, dataset, steps=last, **often)
        monkeypatch.setattr(lock, "WAIT_SECONDS", 0.0)
        with pytest.raises(UsageError, match=rf"process \(pid {first[0].pid} on .*trains it"):
            train(run)
        assert written.exists()
        monkeypatch.undo()
        monkeypatch.setattr(time, "sleep", lambda _seconds: killed(first))
        assert train(run) == last
    finally:
        killed(first)
    assert [line["step"] for line in read_metrics(run.metrics)] == list(range(1, last + 1))


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


def test_a_run_whose_time_is_up_saves_and_ends(tmp_path: Path) -> None:
    dataset = write_shards(tmp_path / "shards")
    often = {"checkpoint_every": 100, "val_every": 1, "val_samples": 1}
    run = made(tmp_path / "run", dataset, stop_after_minutes=1e-9, steps=2, **often)
    assert train(run) == 1
    assert checkpoint.latest(run) == 1
    # No one trains the last step again: it is validated, however little time there is.
    assert train(run) == 2
    assert ["val_loss_video" in line for line in read_metrics(run.metrics)] == [False, True]
    run = made(run.root, dataset, stop_after_minutes=None, steps=4, **often)
    assert train(run) == 4


def test_a_process_whose_time_is_up_says_so_and_trains_no_further_where_it_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = write_shards(tmp_path / "shards")
    run = made(tmp_path / "run", dataset, steps=2, stop_after_minutes=1e-9)
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    assert exit_code_of_a_process(run, monkeypatch) == 1
    assert "stopped at step 1; the same command goes on" in capsys.readouterr().err
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert exit_code_of_a_process(run, monkeypatch) == 1
    assert checkpoint.latest(run) == 1
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")  # Of the same command, given again.
    assert exit_code_of_a_process(run, monkeypatch) is None
    assert checkpoint.latest(run) == 2


@pytest.mark.parametrize(("restarts", "code"), [("0", 1), ("3", None)])
def test_a_process_that_was_told_to_stop_goes_on_where_torchrun_starts_it_again(
    restarts: str, code: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torchrun itself tells it so, as when a node joins."""
    dataset = write_shards(tmp_path / "shards")
    run = made(tmp_path / "run", dataset, steps=2, stop_after_minutes=60)
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", restarts)
    with monkeypatch.context() as told:
        told.setattr(stop.Stop, "asked", lambda _self: True)
        assert exit_code_of_a_process(run, monkeypatch) == code
    assert checkpoint.latest(run) == 1
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert exit_code_of_a_process(run, monkeypatch) is None
    assert checkpoint.latest(run) == 2


def exit_code_of_a_process(run: Run, monkeypatch: pytest.MonkeyPatch) -> str | int | None:
    monkeypatch.setattr(sys, "argv", ["avdata.trainer", str(run.root)])
    try:
        runpy.run_module("avdata.trainer", run_name="__main__")
    except SystemExit as ended_with:
        return ended_with.code
    return None


def test_joint_model_and_twin_can_be_compared_line_by_line(tmp_path: Path) -> None:
    """Clips, order, video's noise, times and dropped captions are the same; another seed's not."""
    dataset = write_shards(tmp_path / "shards")
    names = ("step", "epoch", "batch_digest", "draws_digest", "seats_by_time")
    told = {}
    for name, changes in (
        ("joint", {}),
        ("twin", {"mode": "t2v"}),
        ("other noise", {"caption_dropout": 0.9}),
        ("other seed", {"seed": 1}),
    ):
        run = made(tmp_path / name, dataset, steps=3, **changes)
        train(run)
        told[name] = [[line[key] for key in names] for line in read_metrics(run.metrics)]
    assert told["joint"] == told["twin"]
    assert [line[2] for line in told["joint"]] == [line[2] for line in told["other noise"]]
    assert told["joint"] != told["other noise"]
    assert all(a[2:4] != b[2:4] for a, b in zip(told["joint"], told["other seed"], strict=True))


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(UsageError, match="no GPU of its own"), joined("cuda"):
        pass


def test_a_checkpoint_says_what_it_is_of(tmp_path: Path) -> None:
    dataset = write_shards(tmp_path / "shards")
    run = made(tmp_path / "run", dataset, steps=2)
    train(run)
    facts = checkpoint.facts(run, 2)
    assert facts["step"] == facts["loader"]["step"] == 2
    assert facts["dataset_digest"] == dataset.digest
    assert facts["config"]["learning_rate"] == TRAIN.learning_rate
    folder = checkpoint.folder_of(run.checkpoints, 2)
    assert {one.name for one in folder.iterdir()} == {*facts["files"], checkpoint.FACTS}
    shutil.rmtree(folder)
