"""Minutes of killing and of full disks: run with -m slow."""

import dataclasses
import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from avdata.pipeline.shards.dataset import Dataset
from avdata.trainer import checkpoint
from avdata.trainer.metrics import read_metrics
from avdata.trainer.parallel import ParallelConfig
from avdata.trainer.run import Run, prepare
from tests.trainer.processes import ended, killed, start, trained
from tests.trainer.shards import write_shards
from tests.trainer.test_exact import TRAIN, assert_same_to_the_bit, tensors

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]
KILLS = 30


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_shards(tmp_path_factory.mktemp("shards"))


def is_writing(run: Run) -> bool:
    return any(run.checkpoints.glob("step-*.tmp"))


@pytest.mark.parametrize(
    "parallel", [ParallelConfig(), ParallelConfig("fsdp")], ids=["ddp", "fsdp"]
)
def test_thirty_kills_tear_nothing(
    parallel: ParallelConfig, dataset: Dataset, tmp_path: Path
) -> None:
    """At random moments, every other one while a checkpoint is being written."""
    config = dataclasses.replace(
        TRAIN, parallel=parallel, steps=KILLS + 6, checkpoint_every=1, keep_checkpoints=3
    )
    run = prepare(tmp_path / "run", dataset.root, config)
    whole = prepare(tmp_path / "whole", dataset.root, config)
    trained(whole.root, 2)
    rng, inside, reached = random.Random(0), 0, []
    for number in range(KILLS):
        processes = start(run.root, 2)
        before = len(read_metrics(run.metrics))
        first = checkpoint.latest(run) or 0
        while len(read_metrics(run.metrics)) in (before, first) and processes[0].is_alive():
            time.sleep(0.005)
        while number % 3 == 0 and (checkpoint.latest(run) or 0) == first:
            if not processes[0].is_alive():
                break
            time.sleep(0.005)  # However slow the machine, it has something new to go on from.
        until = time.monotonic() + rng.uniform(0, 0.4)
        while time.monotonic() < until or (number % 2 and not is_writing(run)):
            if not processes[0].is_alive():
                break
            time.sleep(0.0005)
        inside += is_writing(run)
        killed(processes)
        step = checkpoint.latest(run)
        reached.append(step or 0)
        if step is not None:
            facts = checkpoint.facts(run, step)
            assert facts["step"] == step <= len(read_metrics(run.metrics))
            assert tensors(run, tmp_path / "kept.pt")
        if step == config.steps:
            break
    assert sorted(reached) == reached
    assert len(reached) == KILLS
    assert inside >= KILLS // 3
    assert len(set(reached)) >= KILLS // 3
    trained(run.root, 2)
    assert_same_to_the_bit(run, whole, tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("a file system of a few megabytes can be mounted by root alone")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_really_full_disk_costs_no_good_checkpoint(dataset: Dataset, small_disk: Path) -> None:
    config = dataclasses.replace(TRAIN, steps=4, val_samples=0)
    run = prepare(small_disk / "run", dataset.root, config)
    trained(run.root, 2)
    left = os.statvfs(small_disk)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(left.f_bavail * left.f_frsize - 40_000))
    config = dataclasses.replace(config, steps=8, allowed_checkpoint_failures=9)
    prepare(run.root, dataset.root, config)
    assert 1 in ended(start(run.root, 2))
    said = (run.root / "stderr-0.txt").read_text()
    assert "step-00000006: not written (" in said
    assert checkpoint.latest(run) == 4
    ballast.unlink()
    trained(run.root, 2)
    assert checkpoint.latest(run) == 8
