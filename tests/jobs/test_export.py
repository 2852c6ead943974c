import json
import tarfile
from pathlib import Path

import pytest

from avdata.jobs.cli import app
from avdata.jobs.shell import run_app
from tests.trainer.shards import write_shards


def run(*arguments: object) -> int:
    try:
        return run_app(app, [str(one) for one in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)


def test_the_command_prints_what_it_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_shards(tmp_path).root
    assert run("export", root, "--format", "webshart") == 0
    lines = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert run("export", root, "--format", "webshart", "--json") == 0
    assert json.loads(capsys.readouterr().out)["files"] == [str(path) for path in lines]
    for path in lines:
        with tarfile.open(path.with_suffix(".tar")) as tar:
            assert list(json.loads(path.read_text())["files"]) == tar.getnames()


def test_another_format_and_another_folder_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_shards(tmp_path / "shards").root
    assert run("export", root, "--format", "parquet") == 2
    assert "known: wids, energon, dali, webshart" in capsys.readouterr().err
    assert run("export", tmp_path, "--format", "wids") == 2
    assert "no dataset.json" in capsys.readouterr().err
    assert run("export", root) == 2


def test_the_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("export", "--help") == 0
    assert "avdata export data/shards --format energon" in capsys.readouterr().out
