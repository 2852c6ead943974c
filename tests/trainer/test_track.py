"""Metrics in TensorBoard and in Weights & Biases are those of the file."""

import dataclasses
import importlib
import importlib.util
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from avdata.errors import UsageError
from avdata.pipeline.shards.dataset import Dataset
from avdata.trainer.metrics import read_metrics
from avdata.trainer.run import Run, prepare
from avdata.trainer.track import TrackConfig, numbers, require_installed, tracked
from avdata.trainer.train import train
from tests.trainer.shards import write_shards
from tests.trainer.test_exact import TRAIN as EXACT

TRAIN = dataclasses.replace(EXACT, steps=3, val_every=100, val_samples=2, checkpoint_every=2)
BLOCK, HEADER = 32768, 7


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_shards(tmp_path_factory.mktemp("shards"))


def prepared(root: Path, dataset: Dataset, **changes: Any) -> Run:
    return prepare(root, dataset.root, dataclasses.replace(TRAIN, **changes))


def test_tensorboard_has_what_the_file_has(dataset: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = prepared(tmp_path / "run", dataset, track=TrackConfig(tensorboard=True))
    train(run)
    events = EventAccumulator(str(run.root / "tensorboard"))
    events.Reload()
    told = [(one.step, one.value) for one in events.Scalars("loss")]
    assert told == [
        (line["step"], pytest.approx(line["loss"])) for line in read_metrics(run.metrics)
    ]
    assert "validation.raw.by_time.0.5.video" in events.Tags()["scalars"]


def test_wandb_has_what_the_file_has_under_one_name_over_a_resume(
    dataset: Dataset, tmp_path: Path
) -> None:
    pytest.importorskip("wandb")
    for steps in (2, 3):
        run = prepared(tmp_path / "run", dataset, track=TrackConfig(wandb=True), steps=steps)
        # In a process of its own, as it starts a service and warns of itself.
        command = [sys.executable, "-m", "avdata.trainer", str(run.root)]
        subprocess.run(command, check=True, env={**os.environ, "WANDB_MODE": "offline"})
    files = sorted((run.root / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2
    assert len({file.name for file in files}) == 1
    told = [line for file in files for line in history(file)]
    wanted = [dict(numbers(line)) for line in read_metrics(run.metrics)]
    assert [line["_step"] for line in told] == [1, 2, 3]
    assert {"loss", "epoch", "seats_by_time.3", "validation.raw.samples"} <= told[-1].keys()
    for one, line in zip(told, wanted, strict=True):
        assert {name: one[name] for name in line} == line


def history(file: Path) -> Iterator[dict[str, Any]]:
    """Lines of a W&B file: protocol buffers in LevelDB's log format, after a header."""
    messages: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
    data, at, parts = file.read_bytes(), HEADER, b""
    assert data.startswith(b":W&B")
    while at < len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):  # Whole, or the last part.
            record = messages.Record()
            record.ParseFromString(parts)
            parts = b""
            if record.WhichOneof("record_type") == "history":
                yield {
                    ".".join(item.nested_key) or item.key: json.loads(item.value_json)
                    for item in record.history.item
                }


def test_a_refusal_of_wandb_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")

    def refused(**_settings: Any) -> None:
        raise wandb.errors.UsageError("No API key configured")

    monkeypatch.setattr(wandb, "init", refused)
    said = r"track\.wandb: No API key configured; log in with"
    with (
        pytest.raises(UsageError, match=said),
        tracked(TrackConfig(wandb=True), tmp_path, 0, {}),
    ):
        pass


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_what_is_not_installed_is_named_before_anything_begins(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=f"track.{name}: not installed; pip install"):
        require_installed(TrackConfig(tensorboard=name == "tensorboard", wandb=name == "wandb"))
    require_installed(TrackConfig())
