"""What was loaded learns at a rate of its own; whatever is new, at the other."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from avdata.errors import UsageError
from avdata.trainer import checkpoint
from avdata.trainer.config import InitConfig, TrainConfig
from avdata.trainer.data.config import DataConfig, ReadConfig
from avdata.trainer.dry_run import forecast
from avdata.trainer.group import joined
from avdata.trainer.model.avfulldit import AVFullDiT
from avdata.trainer.run import prepare
from avdata.trainer.surgery import export_towers, load_towers
from avdata.trainer.train import train
from tests.trainer import towers
from tests.trainer.shards import write_shards
from tests.trainer.tiny import CLIP, CONFIG, SPECS

NEW, PRETRAINED = 1e-2, 1e-4


def joint_model_from_a_flux_without_its_conditioning(root: Path) -> TrainConfig:
    towers.flux().save_pretrained(root / "flux")
    init = InitConfig(str(towers.wan_folder(root / "wan")), str(root / "flux"))
    return TrainConfig(model=CONFIG, init=init)


def twin_that_has_learned_to_read_the_audio_caption(root: Path) -> TrainConfig:
    config = dataclasses.replace(CONFIG, audio_caption=True)
    export_towers(AVFullDiT.build(config, SPECS, CLIP, "t2v", seed=3), root / "twin")
    return TrainConfig(mode="t2v", model=config, init=InitConfig(joint=str(root / "twin")))


@pytest.mark.parametrize(
    ("begin", "rates"),
    [
        (
            joint_model_from_a_flux_without_its_conditioning,
            {
                "video.": PRETRAINED,
                "audio.flux.": PRETRAINED,
                "audio.pool.": NEW,
                "audio.duration.": NEW,
                "joints.": NEW,
            },
        ),
        (
            twin_that_has_learned_to_read_the_audio_caption,
            {"audio_caption.": PRETRAINED, "video.": NEW},
        ),
    ],
)
def test_what_was_loaded_moves_at_the_rate_of_what_is_pretrained(
    begin: Callable[[Path], TrainConfig], rates: dict[str, float], tmp_path: Path
) -> None:
    """Adam's first steps are no longer than the rate; a run that goes on keeps the rates."""
    dataset = write_shards(tmp_path / "shards", num_sources=4)
    config = dataclasses.replace(
        begin(tmp_path),
        steps=1,
        batch_size=2,
        learning_rate=NEW,
        learning_rate_pretrained=PRETRAINED,
        warmup_steps=0,
        weight_decay=0.0,
        ema_decay=None,
        val_samples=0,
        data=DataConfig(read=ReadConfig(threads=1)),
        device="cpu",
    )
    train(prepare(tmp_path / "run", dataset.root, config))
    run = prepare(tmp_path / "run", dataset.root, dataclasses.replace(config, steps=2))
    train(run)
    begun, trained = (AVFullDiT.build(config.model, SPECS, CLIP, config.mode, 0) for _ in range(2))
    load_towers(begun, config.init)
    with joined("cpu"):
        checkpoint.load_model(run, trained)
    before = dict(begun.named_parameters())
    moved = {
        name: float((value - before[name]).detach().abs().max())
        for name, value in trained.named_parameters()
    }
    for part, rate in rates.items():
        farthest = max(far for name, far in moved.items() if name.startswith(part))
        assert 0.5 * rate < farthest < 2.1 * rate, part


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ({}, "init.video and init.audio would learn at learning_rate = 0.0003"),
        ({"learning_rate": 1e-5}, None),
        ({"learning_rate_pretrained": 3e-4}, None),
        ({"trained": "new"}, None),
        ({"init": InitConfig()}, None),
    ],
)
def test_towers_at_the_rate_of_random_weights_are_warned_of_once(
    changes: dict[str, Any],
    warned: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dataset = write_shards(tmp_path / "shards", num_sources=2)
    init = InitConfig(video="wan", audio="tangoflux")
    config = dataclasses.replace(
        TrainConfig(model=CONFIG, init=init, steps=2, batch_size=2), **changes
    )
    prepare(tmp_path / "run", dataset.root, config)
    said = capsys.readouterr().err
    assert (warned or "") in said
    assert said.count("give --set learning_rate_pretrained=1e-05") == (warned is not None)
    with contextlib.suppress(UsageError):  # The towers are not there.
        forecast(dataset.root, config, 1)
    assert ("learning_rate_pretrained=" in capsys.readouterr().err) == (warned is not None)
    prepare(tmp_path / "run", dataset.root, config)
    assert capsys.readouterr().err == ""
