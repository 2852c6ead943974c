"""How a run ends before its last step, and who may train it meanwhile."""

import os
import runpy
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from avdata.errors import UsageError
from avdata.trainer import checkpoint, lock, stop
from avdata.trainer.group import joined
from avdata.trainer.metrics import read_metrics
from avdata.trainer.run import Run
from avdata.trainer.train import train
from tests.trainer.processes import killed, start
from tests.trainer.shards import write_shards
from tests.trainer.test_exact import made, wait_for_checkpoint


def test_a_run_is_trained_by_one_command_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second one leaves the files alone, and goes on once the first has ended."""
    dataset = write_shards(tmp_path / "shards")
    root, often = tmp_path / "run", {"val_every": 10**6, "checkpoint_every": 1}
    first = start(made(root, dataset, steps=10**6, **often).root)
    run = made(root, dataset, steps=10**6, **often)
    wait_for_checkpoint(run, 2)
    os.kill(first[0].pid or 0, signal.SIGSTOP)
    try:
        written = root / "checkpoints" / "step-00999999.tmp"
        written.mkdir()
        last = (checkpoint.latest(run) or 0) + 4
        run = made(root, dataset, steps=last, **often)
        monkeypatch.setattr(lock, "WAIT_SECONDS", 0.0)
        with pytest.raises(UsageError, match=rf"process \(pid {first[0].pid} on .*trains it"):
            train(run)
        assert written.exists()
        monkeypatch.undo()
        monkeypatch.setattr(time, "sleep", lambda _seconds: killed(first))
        assert train(run) == last
    finally:
        killed(first)
    assert [line["step"] for line in read_metrics(run.metrics)] == list(range(1, last + 1))


def test_a_run_whose_time_is_up_saves_and_ends(tmp_path: Path) -> None:
    dataset = write_shards(tmp_path / "shards")
    often = {"checkpoint_every": 100, "val_every": 1, "val_samples": 1}
    run = made(tmp_path / "run", dataset, stop_after_minutes=1e-9, steps=2, **often)
    assert train(run) == 1
    assert checkpoint.latest(run) == 1
    # No one trains the last step again: it is validated, however little time there is.
    assert train(run) == 2
    assert ["val_loss_video" in line for line in read_metrics(run.metrics)] == [False, True]
    run = made(run.root, dataset, stop_after_minutes=None, steps=4, **often)
    assert train(run) == 4


def test_a_process_whose_time_is_up_says_so_and_trains_no_further_where_it_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = write_shards(tmp_path / "shards")
    run = made(tmp_path / "run", dataset, steps=2, stop_after_minutes=1e-9)
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    assert exit_code_of_a_process(run, monkeypatch) == 1
    assert "stopped at step 1; the same command goes on" in capsys.readouterr().err
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert exit_code_of_a_process(run, monkeypatch) == 1
    assert checkpoint.latest(run) == 1
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")  # Of the same command, given again.
    assert exit_code_of_a_process(run, monkeypatch) is None
    assert checkpoint.latest(run) == 2
    run = made(run.root, dataset, steps=3, stop_after_minutes=60)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")  # And lost a process since.
    assert exit_code_of_a_process(run, monkeypatch) is None
    assert checkpoint.latest(run) == 3


@pytest.mark.parametrize(("restarts", "code"), [("0", 1), ("3", None)])
def test_a_process_that_was_told_to_stop_goes_on_where_torchrun_starts_it_again(
    restarts: str, code: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torchrun itself tells it so, as when a node joins."""
    dataset = write_shards(tmp_path / "shards")
    run = made(tmp_path / "run", dataset, steps=2, stop_after_minutes=60)
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", restarts)
    with monkeypatch.context() as told:
        told.setattr(stop.Stop, "asked", lambda _self: True)
        assert exit_code_of_a_process(run, monkeypatch) == code
    assert checkpoint.latest(run) == 1
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert exit_code_of_a_process(run, monkeypatch) is None
    assert checkpoint.latest(run) == 2


def exit_code_of_a_process(run: Run, monkeypatch: pytest.MonkeyPatch) -> str | int | None:
    monkeypatch.setattr(sys, "argv", ["avdata.trainer", str(run.root)])
    try:
        runpy.run_module("avdata.trainer", run_name="__main__")
    except SystemExit as ended_with:
        return ended_with.code
    return None


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(UsageError, match="no GPU of its own"), joined("cuda"):
        pass
