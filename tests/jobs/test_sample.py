"""`avdata sample` of a run whose encoders have weights."""

import json
import shutil
from pathlib import Path

import av
import pytest

from avdata.pipeline.shards.dataset import Dataset
from avdata.trainer.config import TrainConfig
from avdata.trainer.model.config import Mode
from avdata.trainer.run import Run, open_run, prepare
from avdata.trainer.train import train
from tests.encoders.checkpoints import oobleck
from tests.jobs.films import chosen, places, run
from tests.trainer.tiny import CONFIG

QUICK = ["--count", "1", "--device", "cpu", "--set", "steps=2"]


def trained(root: Path, shards: Path, mode: Mode = "t2av") -> Run:
    config = TrainConfig(
        mode=mode, model=CONFIG, steps=2, batch_size=2, val_samples=1, device="cpu"
    )
    prepared = prepare(root, shards, config)
    train(prepared)
    return prepared


@pytest.fixture(scope="module")
def joint(learned: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("runs") / "joint", learned.root)


def sample(root: Path, *options: str) -> int:
    return run("sample", root, *QUICK, *options)


def made(root: Path) -> list[Path]:
    return sorted((root / "samples").glob("*.mp4"))


def elsewhere(joint: Run, at: Path) -> Path:
    """The run, as if its shards' models had lain in `at`."""
    without = shutil.ignore_patterns("samples")
    file = Path(shutil.copytree(joint.root, at / "run", ignore=without)) / "run.json"
    plain = json.loads(file.read_text())
    for role in plain["encoders"].values():
        role["path"] = str(at / "gone")
    file.write_text(json.dumps(plain))
    return file.parent


def test_a_run_knows_the_encoders_of_its_shards(joint: Run, models: Path) -> None:
    assert joint.encoders == chosen(models)
    assert joint.specs == joint.encoders.specs()


def test_from_films_by_learned_encoders_to_a_film_with_sound(joint: Run) -> None:
    assert sample(joint.root) == 0
    (film,) = made(joint.root)
    with av.open(str(film)) as container:
        (video,), (audio,) = container.streams.video, container.streams.audio
        assert (video.height, video.width, audio.rate) == (64, 96, 44_100)
        assert sum(1 for _ in container.decode(video)) > 1
    told = json.loads(film.with_suffix(".json").read_text())
    assert told["sampler"]["steps"] == 2
    assert "encoders" not in told["sampler"]


def test_models_may_lie_elsewhere_by_now(
    joint: Run, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = elsewhere(joint, tmp_path)
    assert sample(root) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path / 'gone'}: no such folder of weights" in said
    assert not made(root)
    moved = Path(shutil.copytree(models, tmp_path / "moved"))
    assert sample(root, *places(moved)) == 0
    assert len(made(root)) == 1


def test_other_weights_are_refused_before_any_is_loaded(
    joint: Run, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is no weights at all, and nobody notices."""
    other = Path(shutil.copytree(models / "oobleck", tmp_path / "other"))
    oobleck(other / "vae", seed=1)
    (other / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"no weights")
    root = elsewhere(joint, tmp_path)
    where = ["--set", f"encoders.audio.path={other}"]
    assert sample(root, *places(models), *where) == 1
    said = capsys.readouterr().err
    assert "audio encoder digest is" in said
    assert "--set encoders.ROLE.path=FOLDER" in said
    assert len(said.strip().splitlines()) == 1
    assert sample(root, *places(models), "--set", "encoders.vidio.path=x") == 2
    assert "did you mean encoders.video?" in capsys.readouterr().err


def test_the_twin_needs_no_autoencoder_of_sound(
    learned: Dataset, models: Path, tmp_path: Path
) -> None:
    twin = trained(tmp_path / "twin", learned.root, "t2v")
    root = elsewhere(twin, tmp_path)
    there = [one for one in places(models) if one.startswith("encoders.") and ".audio." not in one]
    assert sample(root, *(word for one in there for word in ("--set", one))) == 0
    assert len(made(root)) == 1


def test_a_run_that_does_not_name_its_encoders_has_the_default_ones(
    joint: Run, tmp_path: Path
) -> None:
    plain = json.loads((joint.root / "run.json").read_text())
    del plain["encoders"]
    (tmp_path / "run.json").write_text(json.dumps(plain))
    assert open_run(tmp_path).encoders.video.kind == "block-transform"
