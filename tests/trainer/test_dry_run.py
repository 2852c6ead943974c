"""`--dry-run`: what it foretells, and what it refuses."""

import dataclasses
import json
from typing import Any

import pytest
import torch
from torch import Tensor

from avdata.errors import UsageError
from avdata.pipeline.shards.dataset import Dataset
from avdata.trainer.config import InitConfig
from avdata.trainer.dry_run import forecast
from avdata.trainer.flow import Losses, flow_loss
from avdata.trainer.model.avfulldit import AVFullDiT
from avdata.trainer.parallel import ParallelConfig
from tests.trainer.shards import write_shards
from tests.trainer.test_features import FSDP, TRAIN
from tests.trainer.tiny import CLIP, CONFIG, SPECS, inputs


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_shards(tmp_path_factory.mktemp("shards"))


def test_a_forecast_counts_what_the_run_will_do(dataset: Dataset) -> None:
    config = dataclasses.replace(TRAIN, steps=5, micro_batch_size=1)
    told = forecast(dataset.root, config, 2)
    assert sum(bucket.steps for bucket in told.buckets.values()) == 5
    assert told.seats_a_process * 2 >= told.batch_size
    assert told.parts_a_step == told.seats_a_process
    model = AVFullDiT.build(CONFIG, SPECS, CLIP, "t2av", 0)
    assert told.parameters == sum(one.numel() for one in model.parameters())
    state = [told.memory_gib[name] for name in ("weights", "gradients", "optimizer", "averages")]
    assert sum(state) * 2**30 == pytest.approx(20 * told.parameters)
    sharded = forecast(dataset.root, dataclasses.replace(config, parallel=FSDP), 2)
    assert sharded.memory_gib["optimizer"] == told.memory_gib["optimizer"] / 2
    assert told.seconds_a_step is not None
    assert json.loads(json.dumps(told.plain()))["steps"] == 5
    assert any("memory" in line for line in told.lines())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"parallel": ParallelConfig("fsdp", shard=3)}, r"parallel\.shard = 3 does not divide 4"),
        ({"compile": "nonsense"}, "compile = nonsense: torch has "),
        ({"init": InitConfig(video="nowhere")}, "nowhere.*hf download"),
    ],
)
def test_a_forecast_refuses_what_training_would(
    changes: dict[str, Any], told: str, dataset: Dataset
) -> None:
    with pytest.raises(UsageError, match=told):
        forecast(dataset.root, dataclasses.replace(TRAIN, **changes), 4)


def test_a_forecast_is_timed_on_the_cores_of_one_process(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def timed(*given: Any) -> Losses:
        found.append(torch.get_num_threads())
        return flow_loss(*given)

    monkeypatch.setattr("avdata.trainer.time_forecast.flow_loss", timed)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    forecast(dataset.root, TRAIN, 2)
    assert set(found) == {3}
    assert torch.get_num_threads() == before


def test_twice_the_clips_at_once_keep_twice_the_activations(dataset: Dataset) -> None:
    gib = [
        forecast(dataset.root, dataclasses.replace(TRAIN, micro_batch_size=size), 1).memory_gib[
            "activations"
        ]
        for size in (1, 2)
    ]
    assert gib[1] == pytest.approx(2 * gib[0], rel=0.05)


def test_what_a_forward_pass_in_bfloat16_keeps_is_foretold(dataset: Dataset) -> None:
    """Weights in bfloat16, too: each is cast once, and its gradient needs it."""
    half = dataclasses.replace(TRAIN, precision="bfloat16", micro_batch_size=1)
    told, sharded = (
        forecast(dataset.root, dataclasses.replace(half, parallel=one), 1).memory_gib
        for one in (half.parallel, FSDP)
    )
    assert "bfloat16 copies" not in sharded  # It gathers them so.
    model = AVFullDiT.build(CONFIG, SPECS, CLIP, "t2av", 0)
    weights = {one.untyped_storage().data_ptr() for one in model.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        _out = model(*inputs(batch=1))
    found = sum(one.nbytes() for one in kept.values()) / 2**30
    assert 0.9 * found < told["activations"] + told["bfloat16 copies"] < 1.3 * found
