import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from avdata.config import to_plain
from avdata.errors import CorruptShard, RunError, SpecMismatch, UsageError
from avdata.pipeline.shards.dataset import Dataset
from avdata.trainer import checkpoint
from avdata.trainer.config import TrainConfig
from avdata.trainer.data.config import DataConfig, ReadConfig
from avdata.trainer.launch import launch
from avdata.trainer.metrics import read_metrics
from avdata.trainer.run import Run, open_run, prepare
from avdata.trainer.train import train
from tests.trainer.shards import write_shards
from tests.trainer.tiny import CONFIG, SPECS

ROOT = Path(__file__).parents[2]
ENDLESS = 10**6
TRAIN = TrainConfig(
    model=CONFIG,
    steps=8,
    batch_size=4,
    learning_rate=1e-3,
    warmup_steps=3,
    caption_dropout=0.2,
    val_every=4,
    val_samples=2,
    checkpoint_every=3,
    data=DataConfig(read=ReadConfig(threads=2)),
    device="cpu",
)
EXACT = ("step", "epoch", "loss", "loss_video", "loss_audio", "gradient_norm", "batch_digest")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def whole(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of one process that nobody disturbed."""
    return trained(tmp_path_factory.mktemp("runs") / "whole", dataset)


@pytest.fixture(scope="module")
def stopped(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, int, str]:
    """A run of two processes that was told to stop; its exit code and what it said."""
    root = tmp_path_factory.mktemp("runs") / "run"
    command = endless(root, dataset, processes=2)
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        wait_for_steps(process, root, 5)
        process.terminate()
        said = process.communicate(timeout=120)[1]
    return open_run(root), process.returncode, said


def endless(root: Path, dataset: Dataset, processes: int) -> list[str]:
    """A command that trains until it is stopped; only being told to stop makes a checkpoint."""
    config = dataclasses.replace(TRAIN, steps=ENDLESS, checkpoint_every=ENDLESS)
    file = root.with_name("train.yaml")
    file.write_text(yaml.safe_dump(to_plain(config)))
    command = [sys.executable, "-m", "avdata.jobs.cli", "train", str(dataset.root)]
    return [*command, "--out", str(root), "--config", str(file), "--processes", str(processes)]


def trained(root: Path, dataset: Dataset, **changes: Any) -> Run:
    run = prepare(root, dataset.root, dataclasses.replace(TRAIN, **changes))
    train(run)
    return run


def wait_for_steps(process: "subprocess.Popen[str]", root: Path, count: int) -> None:
    while len(read_metrics(root / "metrics.jsonl")) < count:
        assert process.poll() is None
        time.sleep(0.01)


def lines(run: Run, names: tuple[str, ...] = EXACT) -> list[list[Any]]:
    return [[line[name] for name in names] for line in read_metrics(run.metrics)]


def losses(run: Run, count: int) -> list[float]:
    return [line["loss"] for line in read_metrics(run.metrics)][:count]


def test_two_processes_train_as_one_does(whole: Run, stopped: tuple[Run, int, str]) -> None:
    other, count = stopped[0], 5
    # The gradient, too: Adam hides a wrong scale of it from the losses.
    for name in ("loss", "gradient_norm"):
        ours, theirs = (np.array(lines(run, (name,))[:count]) for run in (other, whole))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    names = ("step", "epoch", "batch_digest")
    assert lines(other, names)[:count] == lines(whole, names)[:count]


def test_a_run_told_to_stop_keeps_its_last_step_and_says_so_in_one_line(
    stopped: tuple[Run, int, str],
) -> None:
    run, code, said = stopped
    assert checkpoint.latest(run) == read_metrics(run.metrics)[-1]["step"]
    assert code == 1
    assert "Traceback" not in said
    (word,) = (line for line in said.splitlines() if not line.startswith("train t2av "))
    assert word.startswith("avdata: ")
    assert "goes on" in word


def test_one_process_goes_on_where_two_stopped_with_the_same_batches(
    dataset: Dataset, stopped: tuple[Run, int, str], tmp_path: Path
) -> None:
    root = Path(shutil.copytree(stopped[0].root, tmp_path / "run"))
    at = checkpoint.latest(stopped[0])
    assert at is not None
    run = trained(root, dataset, steps=at + 3)
    alone = trained(tmp_path / "alone", dataset, steps=at + 3)
    names = ("step", "epoch", "batch_digest")
    assert lines(run, names) == lines(alone, names)
    assert losses(run, at + 3) == pytest.approx(losses(alone, at + 3), rel=5e-2)


def test_restarts_over_several_nodes_that_would_call_lost_processes_are_refused(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepare(tmp_path / "run", dataset.root, TRAIN)
    told = {"USE_AGENT_STORE": "True", "MAX_RESTARTS": "1"}
    for name, value in told.items():
        monkeypatch.setenv(f"TORCHELASTIC_{name}", value)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
        train(run)


def test_when_the_command_is_killed_its_processes_do_not_train_on(
    dataset: Dataset, tmp_path: Path
) -> None:
    """Whoever gives the command again must not find another writer in the folder."""
    root = tmp_path / "run"
    command = endless(root, dataset, processes=1)
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, text=True) as process:
        wait_for_steps(process, root, 1)
        process.kill()
    run = open_run(root)
    while checkpoint.latest(run) is None:
        time.sleep(0.1)
    assert checkpoint.latest(run) == read_metrics(run.metrics)[-1]["step"]


def test_a_killed_run_goes_on_to_the_bit(dataset: Dataset, tmp_path: Path) -> None:
    run = prepare(tmp_path / "run", dataset.root, dataclasses.replace(TRAIN, steps=ENDLESS))
    command = [sys.executable, "-m", "avdata.trainer", str(run.root)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, text=True) as process:
        wait_for_steps(process, run.root, 7)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    at = len(read_metrics(run.metrics))
    assert 0 < (checkpoint.latest(run) or 0) <= at
    again = trained(run.root, dataset, steps=at + 2)
    alone = trained(tmp_path / "alone", dataset, steps=at + 2)
    assert [line["step"] for line in read_metrics(run.metrics)] == list(range(1, at + 3))
    assert lines(again) == lines(alone)


def test_stopping_changes_no_bit(dataset: Dataset, whole: Run, tmp_path: Path) -> None:
    for steps in (1, 3, 4, TRAIN.steps):  # At and between checkpoints.
        run = trained(tmp_path / "run", dataset, steps=steps)
    assert lines(run) == lines(whole)


def test_a_finished_run_is_left_as_it_is(dataset: Dataset, whole: Run) -> None:
    before = whole.metrics.read_bytes()
    assert trained(whole.root, dataset).metrics.read_bytes() == before


def test_the_twin_is_trained_on_the_same_batches_and_compared_on_the_same_clips(
    dataset: Dataset, whole: Run, tmp_path: Path
) -> None:
    twin = trained(tmp_path / "twin", dataset, mode="t2v")
    names = ("step", "epoch", "batch_digest")
    assert lines(twin, names) == lines(whole, names)
    told, seen = read_metrics(twin.metrics), read_metrics(whole.metrics)
    assert all(line["loss_audio"] is None for line in told)
    assert [line["step"] for line in told if "val_loss_video" in line] == [4, 8]
    assert [line["step"] for line in seen if "val_loss_audio" in line] == [4, 8]


def test_a_tiny_set_is_learned(tmp_path: Path) -> None:
    dataset = write_shards(tmp_path / "shards", num_sources=2)
    run = trained(
        tmp_path / "run",
        dataset,
        steps=48,
        learning_rate=6e-3,
        caption_dropout=0.0,
        checkpoint_every=100,
        val_every=100,
    )
    told = read_metrics(run.metrics)
    for name in ("loss_video", "loss_audio"):
        first, last = (sum(line[name] for line in some) for some in (told[:8], told[-8:]))
        assert last < 0.9 * first


def test_so_many_checkpoints_are_kept_and_the_newest_ones(whole: Run) -> None:
    kept = sorted(path.name for path in whole.checkpoints.iterdir())
    assert kept == ["step-00000006", "step-00000008"]


def test_a_checkpoint_that_was_not_finished_counts_for_nothing(
    dataset: Dataset, whole: Run, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(whole.root, tmp_path / "run"))
    newest = root / "checkpoints" / "step-00000008"
    half = newest.rename(newest.with_name(newest.name + ".tmp"))
    (half / ".metadata").unlink()
    run = open_run(root)
    assert checkpoint.latest(run) == 6
    assert lines(trained(root, dataset)) == lines(whole)
    assert not half.exists()


def test_a_broken_checkpoint_is_named(dataset: Dataset, whole: Run, tmp_path: Path) -> None:
    root = Path(shutil.copytree(whole.root, tmp_path / "run"))
    for path in (root / "checkpoints" / "step-00000008").glob("*.distcp"):
        os.truncate(path, 100)
    with pytest.raises(RunError, match="step-00000008: cannot be read"):
        trained(root, dataset, steps=TRAIN.steps + 1)
    shutil.rmtree(root / "checkpoints" / "step-00000008")
    assert lines(trained(root, dataset)) == lines(whole)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"learning_rate": 2e-3}, "learning_rate = 0.001, asked for 0.002"),
        ({"batch_size": 2}, "batch_size = 4, asked for 2"),
        ({"mode": "t2v"}, "mode = 't2av', asked for 't2v'"),
        (
            {"model": dataclasses.replace(CONFIG, rope="vanilla")},
            "model.rope = 'sync', asked for 'vanilla'",
        ),
    ],
)
def test_a_run_does_not_go_on_under_other_settings(
    dataset: Dataset, whole: Run, changes: dict[str, Any], told: str
) -> None:
    before = (whole.root / "run.json").read_bytes()
    with pytest.raises(UsageError, match=f"began with {told}"):
        trained(whole.root, dataset, **changes)
    assert (whole.root / "run.json").read_bytes() == before


def test_a_run_does_not_go_on_with_other_shards(whole: Run, tmp_path: Path) -> None:
    other = write_shards(tmp_path / "other", num_sources=5)
    with pytest.raises(UsageError, match="other shards"):
        prepare(whole.root, other.root, TRAIN)
    video = dataclasses.replace(SPECS.video, digest="1")
    foreign = write_shards(tmp_path / "foreign", specs=dataclasses.replace(SPECS, video=video))
    with pytest.raises(SpecMismatch, match="video encoder digest is '1', expected '0'"):
        prepare(whole.root, foreign.root, TRAIN)


def test_shards_encoded_anew_under_a_run_are_noticed(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", num_sources=6)
    run = prepare(tmp_path / "run", shards.root, TRAIN)
    write_shards(shards.root, num_sources=4)
    with pytest.raises(UsageError, match="not the shards"):
        train(run)


def test_a_run_is_never_written_among_other_files(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="holds other files"):
        prepare(tmp_path, dataset.root, TRAIN)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_loss_that_is_no_number_ends_the_run_before_it_is_saved(
    dataset: Dataset, tmp_path: Path
) -> None:
    run = prepare(
        tmp_path / "run",
        dataset.root,
        dataclasses.replace(TRAIN, learning_rate=1e30, warmup_steps=0, checkpoint_every=100),
    )
    with pytest.raises(RunError, match=r"step \d has loss .*learning_rate"):
        train(run)
    assert checkpoint.latest(run) is None


def test_a_process_that_fails_ends_the_command_with_its_own_words(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """And is not started again, as it would fail again."""
    shards = write_shards(tmp_path / "shards")
    strict = DataConfig(read=ReadConfig(max_bad_samples=0))
    run = prepare(tmp_path / "run", shards.root, dataclasses.replace(TRAIN, data=strict))
    for tar in shards.root.glob("*/train-*.tar"):
        tar.unlink()
    with pytest.raises(RunError, match=r"train-0000\d\d\.tar: missing"):
        launch(run, 2, restarts=2)
    assert 1 <= capfd.readouterr().err.count("avdata: ") <= 2
    with pytest.raises(CorruptShard):
        train(run)
