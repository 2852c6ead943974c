"""A run is the same run: killed and resumed, on other processes, sharded or not."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from avdata.pipeline.shards.dataset import Dataset
from avdata.trainer import checkpoint
from avdata.trainer.config import TrainConfig
from avdata.trainer.metrics import read_metrics
from avdata.trainer.parallel import ParallelConfig
from avdata.trainer.run import Run, open_run, prepare
from tests.trainer.processes import killed, start, trained
from tests.trainer.shards import write_shards
from tests.trainer.tiny import CONFIG

TRAIN = TrainConfig(
    model=CONFIG,
    steps=8,
    batch_size=4,
    micro_batch_size=1,
    learning_rate=1e-3,
    warmup_steps=3,
    ema_decay=0.9,
    caption_dropout=0.2,
    val_every=3,
    val_samples=3,
    checkpoint_every=2,
    deterministic=True,
    device="cpu",
)
FSDP, HSDP = ParallelConfig("fsdp"), ParallelConfig("fsdp", shard=2)
BATCHES = ("step", "epoch", "batch_digest", "draws_digest", "seats_by_time")
NUMBERS = ("loss", "loss_video", "loss_audio", "gradient_norm", "learning_rate")
MEASURED = ("val_loss_video", "val_ema_loss_video", "val_ema_loss_audio")


def made(root: Path, dataset: Dataset, **changes: Any) -> Run:
    return prepare(root, dataset.root, dataclasses.replace(TRAIN, **{"val_samples": 0, **changes}))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def runs(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> "Runs":
    return Runs(dataset, tmp_path_factory.mktemp("runs"))


class Runs:
    """Undisturbed runs, each made once."""

    def __init__(self, dataset: Dataset, root: Path) -> None:
        self._dataset, self._root = dataset, root
        self._made: dict[tuple[ParallelConfig, int], Run] = {}

    def of(self, parallel: ParallelConfig, world: int) -> Run:
        if (parallel, world) not in self._made:
            root = self._root / str(len(self._made))
            run = prepare(root, self._dataset.root, dataclasses.replace(TRAIN, parallel=parallel))
            trained(root, world)
            self._made[parallel, world] = run
        return self._made[parallel, world]


def table(run: Run, names: tuple[str, ...]) -> list[list[Any]]:
    return [[line.get(name) for name in names] for line in read_metrics(run.metrics)]


def tensors(run: Run, into: Path, step: int | None = None) -> dict[str, Any]:
    """Everything in a checkpoint, by default in the newest, by name."""
    step = step or checkpoint.latest(run)
    assert step is not None
    dcp_to_torch_save(checkpoint.folder_of(run.checkpoints, step), into)
    found: dict[str, Any] = {}
    flatten(torch.load(into), "", found)
    return found


def flatten(value: Any, name: str, found: dict[str, Any]) -> None:
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, one in items:
            flatten(one, f"{name}/{key}", found)
    else:
        found[name] = value


def assert_same_to_the_bit(one: Run, other: Run, folder: Path) -> None:
    names = BATCHES + NUMBERS + MEASURED
    assert table(one, names) == table(other, names)
    ours, theirs = tensors(one, folder / "one.pt"), tensors(other, folder / "other.pt")
    assert ours.keys() == theirs.keys()
    for part in ("/model/", "/optimizer/state/", "/ema/"):
        assert any(name.startswith(part) for name in ours)
    for name, value in ours.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, theirs[name]), name
        else:
            assert value == theirs[name], name


def assert_same_but_for_rounding(
    one: Run, other: Run, names: tuple[str, ...] = NUMBERS + MEASURED
) -> None:
    assert table(one, BATCHES) == table(other, BATCHES)
    for name in names:
        pairs = zip(table(one, (name,)), table(other, (name,)), strict=True)
        for (ours,), (theirs,) in pairs:
            assert (ours is None) == (theirs is None)
            if ours is not None:
                np.testing.assert_allclose(ours, theirs, rtol=2e-4, err_msg=name)


def wait_for_checkpoint(run: Run, step: int) -> None:
    while (checkpoint.latest(run) or 0) < step:
        time.sleep(0.01)


@pytest.mark.parametrize("parallel", [ParallelConfig(), FSDP], ids=["ddp", "fsdp"])
def test_a_killed_run_goes_on_to_the_bit(
    parallel: ParallelConfig, dataset: Dataset, runs: Runs, tmp_path: Path
) -> None:
    run = prepare(tmp_path / "run", dataset.root, dataclasses.replace(TRAIN, parallel=parallel))
    processes = start(run.root, 2, dies_after=5)
    processes[0].join()
    killed(processes)
    assert checkpoint.latest(run) in (2, 4)  # The newer one may not have been written yet.
    trained(run.root, 2)
    assert_same_to_the_bit(run, runs.of(parallel, 2), tmp_path)


@pytest.mark.parametrize(
    ("parallel", "world"),
    [(ParallelConfig(), 2), (FSDP, 1), (FSDP, 2), (HSDP, 4)],
    ids=["ddp2", "fsdp1", "fsdp2", "hsdp2x2"],
)
def test_however_it_is_shared_it_is_one_curve(
    parallel: ParallelConfig, world: int, runs: Runs
) -> None:
    assert_same_but_for_rounding(runs.of(parallel, world), runs.of(ParallelConfig(), 1))


def test_a_run_goes_on_sharded_otherwise_and_on_other_processes(
    dataset: Dataset, runs: Runs, tmp_path: Path
) -> None:
    """One process, then four in two copies, then two that are not sharded."""
    root = tmp_path / "run"
    for world, parallel, steps in (
        (1, ParallelConfig(), 2),
        (4, HSDP, 5),
        (2, ParallelConfig(), TRAIN.steps),
    ):
        config = dataclasses.replace(TRAIN, parallel=parallel, steps=steps, val_every=100)
        prepare(root, dataset.root, config)
        # The first run.json stays; what may change comes from the command.
        trained(root, world)
    assert_same_but_for_rounding(open_run(root), runs.of(ParallelConfig(), 1), NUMBERS)
