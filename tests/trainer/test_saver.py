"""Checkpoints that cannot be written, committed or removed."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from avdata import storage
from avdata.errors import RunError
from avdata.trainer import checkpoint
from avdata.trainer.metrics import read_metrics
from avdata.trainer.train import train
from tests.trainer.processes import ended, start
from tests.trainer.shards import write_shards
from tests.trainer.test_exact import TRAIN, made, tensors


def test_a_disk_that_fills_up_costs_checkpoints_and_never_the_last_good_one(
    tmp_path: Path,
) -> None:
    """The kernel refuses to let any file grow beyond the limit, as it does on a full disk."""
    dataset = write_shards(tmp_path / "shards")
    run = made(tmp_path / "run", dataset, steps=4)
    assert ended(start(run.root, 2)) == [0, 0]
    before = tensors(run, tmp_path / "before.pt")
    run = made(run.root, dataset, steps=9, allowed_checkpoint_failures=1)
    codes = ended(start(run.root, 2, file_limit=30_000))
    said = (run.root / "stderr-0.txt").read_text()
    assert "step-00000006: not written (" in said
    assert codes == [1, 1]
    assert "could not be written" in said
    # It trained on after the first one that could not be written.
    assert read_metrics(run.metrics)[-1]["step"] > 6
    assert checkpoint.latest(run) == 4
    after = tensors(run, tmp_path / "after.pt")
    assert all(after[name].equal(one) for name, one in before.items() if "/model/" in name)
    assert not list(run.checkpoints.glob("*.tmp"))
    # With room again it goes on from there.
    assert ended(start(run.root, 2)) == [0, 0]
    assert checkpoint.latest(run) == 9


def test_checkpoints_that_cannot_be_committed_stop_the_run_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = write_shards(tmp_path / "shards")
    settings = {"checkpoint_every": 1, "background_checkpoints": False, "val_every": 100}
    run = made(tmp_path / "run", dataset, allowed_checkpoint_failures=1, **settings)
    write = storage.write_json

    def full(path: Path, value: Any) -> None:
        if path.name == checkpoint.FACTS:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, value)

    monkeypatch.setattr(storage, "write_json", full)
    with pytest.raises(RunError, match="could not be written any more"):
        train(run)
    assert len(read_metrics(run.metrics)) == 3  # Two failed; the step after them says so.
    assert checkpoint.latest(run) is None


def test_a_last_checkpoint_that_cannot_be_committed_is_an_error_of_every_process(
    tmp_path: Path,
) -> None:
    dataset = write_shards(tmp_path / "shards")
    run = made(tmp_path / "run", dataset, steps=2, val_every=100)
    run.checkpoints.mkdir()
    (run.checkpoints / "step-00000002").write_text("of somebody else")
    assert ended(start(run.root, 2)) == [1, 1]
    for rank in range(2):
        said = (run.root / f"stderr-{rank}.txt").read_text()
        assert "step-00000002: could not be written; make room" in said


def test_an_old_checkpoint_that_cannot_be_removed_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = write_shards(tmp_path / "shards")
    settings = {"keep_checkpoints": 1, "checkpoint_every": 1, "val_every": 100}
    run = made(tmp_path / "run", dataset, steps=2, allowed_checkpoint_failures=0, **settings)

    def busy(folder: Path) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(folder))

    monkeypatch.setattr(shutil, "rmtree", busy)
    assert train(run) == 2
    assert checkpoint.latest(run) == 2
    said = capsys.readouterr().err
    assert "step-00000001: an old checkpoint that cannot be removed" in said
    assert "not written" not in said


def test_a_checkpoint_says_what_it_is_of(tmp_path: Path) -> None:
    dataset = write_shards(tmp_path / "shards")
    run = made(tmp_path / "run", dataset, steps=2)
    train(run)
    facts = checkpoint.facts(run, 2)
    assert facts["step"] == facts["loader"]["step"] == 2
    assert facts["dataset_digest"] == dataset.digest
    assert facts["config"]["learning_rate"] == TRAIN.learning_rate
    folder = checkpoint.folder_of(run.checkpoints, 2)
    assert {one.name for one in folder.iterdir()} == {*facts["files"], checkpoint.FACTS}
    shutil.rmtree(folder)
