import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from avdata.jobs.cli import app
from avdata.jobs.shell import run_app
from avdata.trainer.config import TrainConfig
from avdata.trainer.run import prepare
from avdata.trainer.train import train
from tests.trainer import towers
from tests.trainer.shards import write_shards
from tests.trainer.tiny import CONFIG

SIZES = [
    f"--set=model.{name}={getattr(CONFIG, name)}"
    for name in [
        "head_dim",
        "video_heads",
        "video_layers",
        "video_ffn",
        "audio_heads",
        "audio_double_layers",
        "audio_single_layers",
        "num_joint",
        "max_video_text",
        "max_audio_text",
    ]
]


def run(*arguments: object) -> int:
    try:
        return run_app(app, [str(one) for one in arguments])
    except SystemExit as leaving:
        return int(leaving.code or 0)


def test_the_towers_of_a_run_come_out_and_fit_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From files to a run, to folders, to a check of those folders."""
    video = towers.wan_folder(tmp_path / "wan")
    audio = towers.tangoflux_folder(tmp_path / "tangoflux")
    shards = write_shards(tmp_path / "shards").root
    named = [f"--set=init.video={video}", f"--set=init.audio={audio}", f"--set=shards={shards}"]
    assert run("model", "load", *SIZES, *named, "--json") == 0
    found = json.loads(capsys.readouterr().out)["parts"]
    assert found["all"]["loaded"]["parameters"] > found["all"]["new"]["parameters"] > 0
    assert found["video tower"]["new"]["tensors"] == 0

    root, out = tmp_path / "run", tmp_path / "out"
    config = TrainConfig(model=CONFIG, steps=1, batch_size=2, val_samples=0, device="cpu")
    train(prepare(root, shards, config))
    assert run("model", "export", root, "--out", out) == 0
    assert str(out / "joint.safetensors") in capsys.readouterr().out.splitlines()
    assert len(load_file(out / "joint.safetensors")) == 7 * CONFIG.num_joint
    named = [f"--set=init.{one}={out / one}" for one in ("video", "audio")]
    assert run("model", "load", *SIZES, *named, f"--set=shards={shards}") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:6]] == ["video", "audio", "audio", "joint", "all"]
    assert lines[-1].endswith("TFLOP forward and backward")


@pytest.mark.parametrize(
    "arguments",
    [["load"], ["export"], ["oops"], ["show", "run"], ["show", "--set", "init.video=x"]],
    ids=lambda one: one[0],
)
def test_an_action_without_what_it_needs_is_told_how_to_be_written(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("model", *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "avdata model export RUN --out DIR" in line


def test_towers_of_another_size_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = towers.wan_folder(tmp_path / "wan")
    assert run("model", "load", "--preset", "demo", f"--set=init.video={video}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "this model has" in line
    assert str(video) in line
