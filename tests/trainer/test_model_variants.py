"""Each variant does what its field says, and combinations without meaning are refused."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from avdata.errors import UsageError
from avdata.pipeline.shards.dataset import Dataset
from avdata.storage import read_json, write_json
from avdata.trainer.config import InitConfig, TrainConfig
from avdata.trainer.data.config import DataConfig, ReadConfig
from avdata.trainer.metrics import read_metrics
from avdata.trainer.model.avfulldit import AVFullDiT
from avdata.trainer.model.config import ModelConfig, Rope
from avdata.trainer.model.cross_block import CrossBlock
from avdata.trainer.model.joint_block import JointBlock
from avdata.trainer.run import prepare
from avdata.trainer.train import train
from tests.trainer.shards import write_shards
from tests.trainer.tiny import CLIP, CONFIG, SPECS, inputs

CROSS = dataclasses.replace(CONFIG, fusion="cross")
HEARD = dataclasses.replace(CONFIG, audio_caption=True)


def model(config: ModelConfig) -> AVFullDiT:
    return AVFullDiT.build(config, SPECS, CLIP, "t2av", seed=0)


def far(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() > 1e-4)


def test_cross_attention_adds_to_both_towers_and_starts_as_they_are() -> None:
    """With its output at zero the joint model is the two towers side by side."""
    whole = model(dataclasses.replace(CROSS, new_output_std=0.0))
    assert all(isinstance(joint, CrossBlock) for joint in whole.joints)
    video, audio, t = inputs()
    out = whole(video, audio, t)
    alone = whole.video.wan(video.latents, t * 1000, video.text, return_dict=False)[0]
    torch.testing.assert_close(out.video, alone, atol=1e-5, rtol=0)
    other = whole(dataclasses.replace(video, latents=video.latents + 1), audio, t)
    torch.testing.assert_close(out.audio, other.audio, atol=0, rtol=0)


def test_cross_attention_carries_information_both_ways_and_all_of_it_learns() -> None:
    whole = model(CROSS)
    video, audio, t = inputs()
    before = whole(video, audio, t)
    louder = dataclasses.replace(audio, latents=audio.latents + 1)
    brighter = dataclasses.replace(video, latents=video.latents + 1)
    assert far(whole(video, louder, t).video, before.video)
    assert far(whole(brighter, audio, t).audio, before.audio)
    (before.video.square().mean() + before.audio.square().mean()).backward()
    idle = [name for name, p in whole.named_parameters() if p.grad is None or not p.grad.any()]
    # A softmax does not see what is added to all keys alike.
    assert [name for name in idle if "new_k.bias" not in name] == []


@pytest.mark.parametrize("num_joint", [0, 1, 3])
def test_so_many_layers_are_joined(num_joint: int) -> None:
    whole = model(dataclasses.replace(CONFIG, num_joint=num_joint))
    assert sum(isinstance(one, JointBlock) for one in whole.modules()) == num_joint
    video, audio, t = inputs()
    louder = dataclasses.replace(audio, latents=audio.latents + 1)
    assert far(whole(video, louder, t).video, whole(video, audio, t).video) is (num_joint > 0)


def test_each_rope_is_another_model_and_only_expand_video_changes_the_twin() -> None:
    ropes: list[Rope] = ["sync", "vanilla", "expand_video"]
    video, audio, t = inputs()
    configs = [dataclasses.replace(CONFIG, rope=rope) for rope in ropes]
    joint = [model(config)(video, audio, t) for config in configs]
    assert all(far(a.audio, b.audio) for a, b in zip(joint, joint[1:] + joint[:1], strict=True))
    twins = [AVFullDiT.build(one, SPECS, CLIP, "t2v", 0)(video, None, t).video for one in configs]
    assert torch.equal(twins[0], twins[1])
    assert far(twins[0], twins[2])


def test_the_twin_given_the_audio_caption_reads_it_and_hears_nothing() -> None:
    plain = AVFullDiT.build(CONFIG, SPECS, CLIP, "t2v", 0)
    twin = AVFullDiT.build(HEARD, SPECS, CLIP, "t2v", 0)
    shared = plain.state_dict()
    assert all(torch.equal(twin.state_dict()[name], value) for name, value in shared.items())
    video, audio, t = inputs()
    out = twin(video, audio, t)
    assert out.audio is None
    louder = dataclasses.replace(audio, latents=audio.latents + 1)
    assert torch.equal(twin(video, louder, t).video, out.video)
    retold = dataclasses.replace(audio, text=audio.text + 1)
    assert far(twin(video, retold, t).video, out.video)
    with pytest.raises(UsageError, match="needs audio"):
        twin(video, None, t)
    with pytest.raises(UsageError, match="takes no audio"):
        plain(video, audio, t)


def test_times_of_their_own_reach_their_modality() -> None:
    whole = model(dataclasses.replace(CONFIG, num_joint=0))
    video, audio, t = inputs()
    shared = whole(video, audio, t)
    other = whole(video, audio, torch.stack([t, 1 - t], dim=1))
    assert torch.equal(other.video, shared.video)
    assert far(other.audio, shared.audio)
    same = whole(video, audio, torch.stack([t, t], dim=1))
    assert torch.equal(same.audio, shared.audio)


def test_frozen_towers_leave_the_new_matrices_to_learn() -> None:
    whole = model(CONFIG)
    whole.freeze_towers()
    out = whole(*inputs())
    (out.video.square().mean() + out.audio.square().mean()).backward()
    learns = {name for name, p in whole.named_parameters() if p.grad is not None}
    assert learns == {name for name, _ in whole.named_parameters() if name.startswith("joints.")}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mode": "t2v", "lambda_audio": 0.1}, "lambda_audio means nothing in mode t2v"),
        ({"mode": "t2v", "shared_time": False}, "means nothing in mode t2v"),
        ({"mode": "t2v", "init": InitConfig(audio="x")}, "init.audio means nothing"),
        ({"mode": "t2v", "lambda_video": 0.0}, "nothing is left to learn"),
        ({"lambda_video": 0.0, "lambda_audio": 0.0}, "nothing is left to learn"),
        ({"lambda_audio": -1.0}, "must not be negative"),
        ({"model": HEARD}, "audio_caption is for mode t2v"),
        ({"trained": "new"}, "give init.video and init.audio"),
        ({"trained": "new", "mode": "t2v"}, "mode t2v has no new weights"),
        ({"trained": "new", "mode": "t2v", "model": HEARD}, "give init.video"),
        ({"trained": "new", "model": dataclasses.replace(CONFIG, num_joint=0)}, "num_joint is 0"),
    ],
)
def test_settings_that_make_no_sense_together_are_refused(
    settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        TrainConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [{"fusion": "cross", "num_joint": 0}, {"new_std": 0.0}, {"new_output_std": -1.0}],
)
def test_a_model_that_makes_no_sense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="|".join(settings)):
        dataclasses.replace(CONFIG, **settings)


TRAIN = TrainConfig(
    model=CONFIG,
    steps=2,
    batch_size=4,
    val_every=2,
    val_samples=1,
    data=DataConfig(read=ReadConfig(threads=1)),
    device="cpu",
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_shards(tmp_path_factory.mktemp("shards"))


def metrics(root: Path, dataset: Dataset, config: TrainConfig = TRAIN) -> list[dict[str, Any]]:
    run = prepare(root, dataset.root, config)
    assert train(run) == TRAIN.steps
    return read_metrics(run.metrics)


def test_every_variant_trains_and_only_what_it_changes_changes(
    dataset: Dataset, tmp_path: Path
) -> None:
    """All at once, since a run of its own for each would cost seconds."""
    plain = metrics(tmp_path / "plain", dataset)
    again = metrics(
        tmp_path / "again", dataset, dataclasses.replace(TRAIN, activation_checkpointing=True)
    )
    assert [line["loss"] for line in again] == [line["loss"] for line in plain]
    apart = metrics(tmp_path / "apart", dataset, dataclasses.replace(TRAIN, shared_time=False))
    assert apart[0]["loss_audio"] != plain[0]["loss_audio"]
    cross = metrics(tmp_path / "cross", dataset, dataclasses.replace(TRAIN, model=CROSS))
    assert cross[0]["loss_video"] != plain[0]["loss_video"]
    weighed = metrics(
        tmp_path / "weighed",
        dataset,
        dataclasses.replace(TRAIN, lambda_video=0.5, lambda_audio=0.1),
    )
    first = weighed[0]
    assert first["loss"] == pytest.approx(0.5 * first["loss_video"] + 0.1 * first["loss_audio"])
    twin = metrics(tmp_path / "twin", dataset, dataclasses.replace(TRAIN, mode="t2v", model=HEARD))
    assert [line["loss_audio"] for line in twin] == [None, None]
    assert "val_loss_video" in twin[-1]
    assert "val_loss_audio" not in twin[-1]
    batches = [[line["batch_digest"] for line in one] for one in (plain, again, apart, cross, twin)]
    assert batches == [batches[0]] * 5


def test_a_run_from_before_there_were_variants_goes_on(dataset: Dataset, tmp_path: Path) -> None:
    whole = metrics(tmp_path / "whole", dataset)
    root = tmp_path / "old"
    run = prepare(root, dataset.root, dataclasses.replace(TRAIN, steps=1))
    assert train(run) == 1
    plain = read_json(root / "run.json")
    for name in ("init", "trained", "shared_time", "activation_checkpointing"):
        del plain["config"][name]
    for name in ("fusion", "audio_caption"):
        del plain["config"]["model"][name]
    write_json(root / "run.json", plain)
    assert train(prepare(root, dataset.root, TRAIN)) == TRAIN.steps
    assert read_metrics(run.metrics)[-1]["loss"] == whole[-1]["loss"]
