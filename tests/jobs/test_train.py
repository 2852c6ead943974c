"""How training is started: forecast, options, Ray Train."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from avdata.config import load, to_plain
from avdata.errors import UsageError
from avdata.jobs.cli import app
from avdata.jobs.shell import run_app
from avdata.jobs.train import Start, progress_of, train
from avdata.pipeline.shards.dataset import Dataset
from avdata.trainer.config import TrainConfig
from avdata.trainer.metrics import read_metrics
from avdata.trainer.model.config import preset
from avdata.trainer.run import prepare
from tests.trainer.processes import trained
from tests.trainer.shards import write_shards
from tests.trainer.test_exact import TRAIN

QUICK = dataclasses.replace(TRAIN, steps=6, val_every=100, val_samples=1)
EXACT = ("step", "loss", "gradient_norm", "batch_digest", "draws_digest")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_shards(tmp_path_factory.mktemp("shards"))


def lines(root: Path, names: tuple[str, ...]) -> list[list[object]]:
    return [[line[name] for name in names] for line in read_metrics(root / "metrics.jsonl")]


def test_a_dry_run_writes_nothing_and_says_what_will_be(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    command = ["train", str(dataset.root), "--out", str(out), "--dry-run", "--json"]
    with pytest.raises(SystemExit) as done:
        run_app(app, [*command, "--processes", "2", "--set", "steps=5"])
    assert done.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert sum(bucket["steps"] for bucket in told["buckets"].values()) == told["steps"] == 5
    assert told["seats_a_process"] == 8
    assert not out.exists()


def test_the_papers_settings_are_those_it_states() -> None:
    """arXiv 2512.02457, its training on clips of 2 s; every weight at one rate."""
    file = Path(__file__).parents[2] / "examples" / "paper.yaml"
    settings = ["init.video=wan", "init.audio=tangoflux"]
    under = {"model": to_plain(preset("wan5b-tangoflux"))}
    config = load(TrainConfig, file, settings, under)
    assert (config.learning_rate, config.learning_rate_pretrained) == (1e-5, None)
    assert (config.steps, config.batch_size, config.trained) == (7500, 8, "all")
    assert (config.lambda_video, config.lambda_audio, config.shared_time) == (1.0, 1.0, True)
    sampler = config.sampler
    assert (sampler.steps, sampler.guidance_video, sampler.guidance_audio) == (50, 5.0, 4.5)
    assert (config.model, config.mode) == (preset("wan5b-tangoflux"), "t2av")


def test_ray_train_trains_the_same_run(dataset: Dataset, tmp_path: Path) -> None:
    config = dataclasses.replace(QUICK, steps=3)
    train(tmp_path / "ray", dataset.root, config, Start(processes=2, ray=True))
    prepare(tmp_path / "here", dataset.root, config)
    trained(tmp_path / "here", 2)
    assert lines(tmp_path / "ray", EXACT) == lines(tmp_path / "here", EXACT)


def test_steps_that_were_not_applied_have_no_part_in_the_losses(
    dataset: Dataset, tmp_path: Path
) -> None:
    run = prepare(tmp_path / "run", dataset.root, QUICK)
    skipped: dict[str, Any] = {"loss": None, "loss_video": None, "loss_audio": 2.0, "skipped": True}
    applied = [{"loss": 2.0 * k, "loss_video": k, "loss_audio": k} for k in range(1, 21)]
    with run.metrics.open("w") as file:
        for number, line in enumerate([skipped, *applied, skipped]):
            file.write(json.dumps({"step": number + 1, **line}) + "\n")
    found = progress_of(run)
    assert found["step"] == 22
    for name in ("loss_video", "loss_audio"):
        assert (found[f"{name}_first"], found[f"{name}_last"]) == (1.5, 19.5)
    run.metrics.write_text(json.dumps({"step": 1, **skipped}) + "\n")
    assert progress_of(run) == {"mode": "t2av", "step": 1}


def test_options_that_mean_nothing_together_are_refused() -> None:
    with pytest.raises(UsageError, match="--ray"):
        Start(processes=2, least=1)
    with pytest.raises(UsageError, match="exceeds"):
        Start(processes=2, least=3, ray=True)
