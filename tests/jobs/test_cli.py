import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from avdata.encoders.choice import EncodersConfig
from avdata.encoders.spec import ClipShape
from avdata.jobs import options as shared
from avdata.jobs.cli import app
from avdata.jobs.shell import run_app
from avdata.pipeline.manifest import Manifest
from avdata.trainer.config import TrainConfig
from avdata.trainer.model.config import preset
from avdata.trainer.run import prepare
from avdata.trainer.train import train
from tests.pipeline.media import Sound, bouncing_ball, clicks, times_at, write_movie
from tests.trainer.shards import write_shards

ROOT = Path(__file__).parents[2]
COMMANDS = [
    command.name or command.callback.__name__
    for command in app.registered_commands
    if command.callback
]
SHAPE = ClipShape(num_frames=9, height=64, width=64)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the default encoders."""
    specs = EncodersConfig().specs()
    return write_shards(tmp_path_factory.mktemp("shards"), specs=specs, shape=SHAPE).root


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of encoders that nobody has."""
    return write_shards(tmp_path_factory.mktemp("foreign")).root


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pictures = bouncing_ball()
    path = tmp_path_factory.mktemp("raw") / "ball.mp4"
    return write_movie(path, pictures, times_at(24, len(pictures)), Sound(clicks([0.75, 1.5], 2.5)))


def run(*arguments: object) -> int:
    """The exit code of a command in this process; typer leaves by SystemExit."""
    try:
        return run_app(app, [str(one) for one in arguments])
    except SystemExit as leaving:
        return int(leaving.code or 0)


def test_a_folder_is_the_same_to_workers_whatever_folder_they_are_in() -> None:
    here = {"in/m": str(Path.cwd() / "in/m"), "/in/m": "/in/m"}
    for name, meant in here.items():
        assert str(shared.local(name)) == str(shared.far_or_near(name)) == meant
    assert str(shared.far_or_near("s3://in/m")) == "s3://in/m"


def refused(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    """The one line with which a command ends."""
    assert run(*arguments) == code
    said = capsys.readouterr()
    assert said.out == ""
    shown = ("digest ", "ingest ", "train ")
    lines = [line for line in said.err.splitlines() if not line.startswith(shown)]
    assert len(lines) == 1, said.err
    assert lines[0].startswith("avdata: ")
    return lines[0]


def options(name: str, folder: Path) -> list[object]:
    """What a command needs besides the path it reads."""
    inline = ["--inline"] if name in ("ingest", "encode") else []
    out = ["--out", folder / "out"] if name in ("ingest", "encode", "train") else []
    return [*inline, *out]


READERS = ["ingest", "select", "caption", "encode", "verify", "train", "sample", "report"]


@pytest.mark.parametrize("name", READERS)
def test_a_folder_that_is_not_there_is_named_in_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, 2, name, tmp_path / "nowhere", *options(name, tmp_path))
    assert str(tmp_path / "nowhere") in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", READERS)
def test_an_empty_folder_is_named_in_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    assert str(folder) in refused(capsys, 2, name, folder, *options(name, tmp_path))
    assert list(tmp_path.rglob("*")) == [folder]


@pytest.mark.parametrize("name", ["ingest", "clips", "train"])
def test_what_cannot_lie_on_s3_is_refused_before_anything_is_made(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, 2, name, tmp_path, "--out", "s3://bucket/out")
    assert "s3://bucket/out: " in line
    assert "a folder on this machine" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "setting", "hint"),
    [
        ("ingest", "num_frame=17", "num_frames"),
        ("encode", "plan.val_fracton=0.5", "plan.val_fraction"),
        ("train", "lerning_rate=1", "learning_rate"),
        ("train", "model.num_joints=1", "model.num_joint"),
        ("demo", "world.num_video=1", "world.num_videos"),
    ],
)
def test_a_setting_that_does_not_exist_is_met_with_the_nearest_that_does(
    name: str, setting: str, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, 2, name, tmp_path / "in", *options(name, tmp_path), "--set", setting)
    assert f"unknown key {setting.partition('=')[0]}; did you mean {hint}?" in line


@pytest.mark.parametrize(
    ("name", "setting", "told"),
    [
        ("train", "steps=0", "steps must be positive"),
        ("train", "batch_size=many", "batch_size = 'many'"),
        ("train", "model.num_joint=99", "num_joint = 99 exceeds"),
        ("train", "steps", "key=value"),
        ("ingest", "num_frames=16", "4k+1"),
        ("encode", "plan.samples_per_shard=0", "samples_per_shard must be positive"),
    ],
)
def test_a_value_that_cannot_be_is_named(
    name: str,
    setting: str,
    told: str,
    shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert told in refused(capsys, 2, name, shards, *options(name, tmp_path), "--set", setting)


def test_a_configuration_file_is_read_and_a_wrong_one_named(
    tmp_path: Path, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "train.yaml"
    command = ["train", shards, "--out", tmp_path / "run", "--config", file, "--prepare"]
    assert "no such configuration file" in refused(capsys, 2, *command)
    file.write_text("steps: [")
    assert "not YAML" in refused(capsys, 2, *command)
    file.write_text("stepps: 3")
    assert "did you mean steps?" in refused(capsys, 2, *command)
    file.write_text("steps: 3\nmodel:\n  rope: vanilla\n")
    assert run(*command, "--set", "batch_size=2") == 0
    plain = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    assert (plain["steps"], plain["batch_size"], plain["model"]["rope"]) == (3, 2, "vanilla")


@pytest.mark.parametrize(("preset", "told"), [("dmeo", "demo"), ("enormous", "wan5b-tangoflux")])
def test_an_unknown_preset_is_met_with_those_there_are(
    preset: str, told: str, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", shards, "--out", tmp_path / "run", "--preset", preset]
    assert told in refused(capsys, 2, *command)


def test_a_run_and_shards_of_other_encoders_never_meet(
    shards: Path, foreign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "run"
    assert run("train", foreign, "--out", root, "--prepare") == 0
    capsys.readouterr()
    line = refused(capsys, 1, "train", shards, "--out", root)
    assert "video encoder name" in line
    assert "'v'" in line


def test_samples_of_a_run_whose_encoders_are_not_here_are_refused(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "run"
    model = dataclasses.replace(preset("demo"), video_layers=1, audio_single_layers=1, num_joint=1)
    config = TrainConfig(model=model, steps=1, batch_size=1, val_samples=1, device="cpu")
    captions = ["--video-caption", "a ball", "--audio-caption", "a hit", "--count", "1"]
    run_there = prepare(root, shards, config)
    assert "no checkpoint" in refused(capsys, 2, "sample", root, *captions)
    train(run_there)
    plain = json.loads((root / "run.json").read_text())
    plain["specs"]["audio"]["digest"] = "of another build"
    (root / "run.json").write_text(json.dumps(plain))
    capsys.readouterr()
    line = refused(capsys, 1, "sample", root, *captions)
    assert "audio encoder digest" in line
    assert not (root / "samples").exists()


def test_one_caption_without_the_other_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, 2, "sample", tmp_path, "--video-caption", "a ball")
    assert "--audio-caption" in line


def test_a_damaged_shard_fails_verification_with_every_problem(
    shards: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run("verify", shards, "--json") == 0
    assert json.loads(capsys.readouterr().out)["problems"] == 0
    root = write_shards(tmp_path / "damaged").root
    tar = next(root.glob("*/train-*.tar"))
    data = bytearray(tar.read_bytes())
    data[1000] ^= 1
    tar.write_bytes(data)
    assert run("verify", root) == 1
    head, listed = capsys.readouterr().err.splitlines()[-2:]
    assert head == f"avdata: {root}: 1 problems"
    assert tar.stem in listed


def test_a_policy_that_cannot_be_read_is_named_before_any_work(
    film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("name: odd\nrules:\n  dim: technical.luma_maen < 0.1\n")
    command = ["ingest", film, "--out", tmp_path / "m", "--inline", "--policy", policy]
    line = refused(capsys, 2, *command)
    assert "rule dim" in line
    assert "luma_mean" in line
    assert list(tmp_path.iterdir()) == [policy]
    assert "rule dim" in refused(capsys, 2, *command, tmp_path / "nowhere")


def test_nothing_usable_is_an_exit_code_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "empty.mp4").touch()
    command = ["ingest", tmp_path / "raw", "--out", tmp_path / "m", "--inline"]
    assert "empty_file" in refused(capsys, 3, *command)


def test_from_film_to_shards_each_command_answers_one_json_object(
    film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(*arguments: object) -> dict[str, Any]:
        assert run(*arguments, "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert isinstance(found, dict)
        return found

    m, s, page = tmp_path / "m", tmp_path / "s", tmp_path / "report.html"
    funnel = answer("ingest", film, "--out", m, "--inline", "--set", "num_frames=17")["funnel"]
    assert funnel == {"clips": 2, "keep": 2}
    told = "meaning: not measured; `avdata semantics` does"
    for measured in (False, True):  # Said only while there is something to say.
        assert run("ingest", film, "--out", m, "--inline", "--set", "num_frames=17") == 0
        assert (told in capsys.readouterr().out) == (not measured)
        Manifest(m).write_semantics([])
    (m / "semantics.parquet").unlink()
    assert answer("caption", m)["captions"] == 2
    encode = ["encode", m, "--out", s, "--inline"]
    assert "96x100" in refused(capsys, 2, *encode, "--set", "height=96", "--set", "width=100")
    assert answer(*encode, "--set", "height=64", "--set", "width=96")["shards"] == 1
    assert answer("verify", s) == {"shards": 1, "samples": 2, "problems": 0}
    assert answer("verify", m) == {"clips": 2, "quarantined": 0, "problems": 0}
    assert answer("report", m, s, "--out", page) == {"report": str(page)}
    assert page.stat().st_size > 0
    late = tmp_path / "late.yaml"
    late.write_text("name: late\nrules:\n  late: start_s > 0.5\n")
    funnel = answer("select", m, "--policy", late)["funnel"]
    assert funnel == {"clips": 2, "keep": 1, "late": 1}


def test_a_traceback_is_shown_only_where_it_is_asked_for(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "avdata.jobs.cli", "verify", str(tmp_path / "nowhere")]

    def said(*more: str) -> tuple[int, str]:
        done = subprocess.run(
            [*command, *more], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.stdout == ""
        return done.returncode, done.stderr

    code, plain = said()
    assert (code, len(plain.splitlines())) == (2, 1)
    code, full = said("--debug")
    assert code != 0
    assert "Traceback" in full
    assert "UsageError" in full


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_has_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(name, "--help") == 0
    said = capsys.readouterr().out
    assert f"Example: avdata {name} " in said.replace("\n", " ") + " "


def test_every_option_is_explained() -> None:
    group = typer.main.get_command(app)
    commands = getattr(group, "commands", {})
    assert sorted(commands) == sorted(COMMANDS)
    for name, command in commands.items():
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name} {parameter.name}"


@pytest.mark.parametrize("arguments", [["--oops"], ["oops"], ["train"], ["verify", "a", "b"]])
def test_a_command_line_that_cannot_be_understood_ends_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_doctor_finds_what_the_tests_themselves_need(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("doctor", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert {found[what]["state"] for what in ("extra curate", "decoding", "encoding")} == {"ok"}
    assert run("doctor") == 0
    assert len(capsys.readouterr().out.splitlines()) == len(found)
