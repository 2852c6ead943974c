"""A training process that is lost costs the steps since the last checkpoint, and nothing else.

Minutes of starting processes: run with -m slow.
"""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from avdata.jobs.train import Start, train
from avdata.pipeline.shards.dataset import Dataset
from avdata.trainer import checkpoint
from avdata.trainer.run import Run, open_run, prepare
from tests.trainer.processes import trained
from tests.trainer.shards import write_shards
from tests.trainer.test_exact import (
    TRAIN,
    assert_same_but_for_rounding,
    assert_same_to_the_bit,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]
CONFIG = dataclasses.replace(TRAIN, steps=40)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def whole(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Of two processes, of which none was lost."""
    run = prepare(tmp_path_factory.mktemp("whole") / "run", dataset.root, CONFIG)
    trained(run.root, 2)
    return run


def processes(*words: str) -> Iterator[int]:
    """Those of this machine whose command or environment has all the words."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            told = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
        except OSError:
            continue
        if all(word.encode() in told for word in words):
            yield int(folder.name)


@contextmanager
def lost(root: Path, lose: Callable[[], object]) -> Iterator[None]:
    """Loses something once the run has a checkpoint, and makes sure that it was in the middle."""
    reached: list[int] = []
    over = threading.Event()

    def once() -> None:
        while not list((root / "checkpoints").glob("step-????????")) and not over.is_set():
            time.sleep(0.01)
        lose()
        reached.append(checkpoint.latest(open_run(root)) or 0)

    thread = threading.Thread(target=once)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert len(reached) == 1
    assert 0 < reached[0] < CONFIG.steps


def test_torchrun_starts_all_of_them_again(dataset: Dataset, whole: Run, tmp_path: Path) -> None:
    """And the run is the one that lost none."""
    root = tmp_path / "run"

    def lose() -> None:
        # torchrun itself is in this process.
        os.kill(max(processes("avdata.trainer\0", str(root))), signal.SIGKILL)

    with lost(root, lose):
        train(root, dataset.root, CONFIG, Start(processes=2, restarts=4))
    assert_same_to_the_bit(open_run(root), whole, tmp_path)


def test_your_own_torchrun_does(dataset: Dataset, whole: Run, tmp_path: Path) -> None:
    run = prepare(tmp_path / "run", dataset.root, CONFIG)
    options = ["--nproc-per-node", "2", "--max-restarts", "1", "-m", "avdata.trainer"]
    command = [sys.executable, "-m", "torch.distributed.run", *options, str(run.root)]

    def lose() -> None:
        os.kill(max(processes("-m\0avdata.trainer\0", str(run.root), "RANK=1")), signal.SIGKILL)

    with lost(run.root, lose):
        subprocess.run(command, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    assert_same_to_the_bit(run, whole, tmp_path)


def test_your_own_torchrun_fails_where_the_time_was_up(dataset: Dataset, tmp_path: Path) -> None:
    """It starts the processes again as often as it may; none of them trains."""
    late = dataclasses.replace(CONFIG, stop_after_minutes=1e-9)
    run = prepare(tmp_path / "run", dataset.root, late)
    options = ["--nproc-per-node", "2", "--max-restarts", "2", "-m", "avdata.trainer"]
    command = [sys.executable, "-m", "torch.distributed.run", *options, str(run.root)]
    for reached in (1, 2):
        ended = subprocess.run(command, cwd=ROOT, check=False, stderr=subprocess.PIPE, text=True)
        assert ended.returncode == 1
        assert ended.stderr.count("the same command goes on") == 1
        assert checkpoint.latest(run) == reached


def test_your_own_torchrun_on_two_nodes_does(dataset: Dataset, whole: Run, tmp_path: Path) -> None:
    """Two of it on this machine, which find each other as those of two machines do."""
    run = prepare(tmp_path / "run", dataset.root, CONFIG)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
    options = ["--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "3"]
    options += ["--rdzv-backend", "c10d", "--rdzv-endpoint", place, "--local-addr", "127.0.0.1"]
    command = [sys.executable, "-m", "torch.distributed.run", *options]
    command += ["-m", "avdata.trainer", str(run.root)]
    env = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}

    def lose() -> None:
        os.kill(max(processes("-m\0avdata.trainer\0", str(run.root), "RANK=1")), signal.SIGKILL)

    with lost(run.root, lose):
        nodes = [
            subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.DEVNULL)
            for _ in range(2)
        ]
        assert [node.wait() for node in nodes] == [0, 0]
    assert_same_to_the_bit(run, whole, tmp_path)


def test_ray_train_does(
    dataset: Dataset, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "run"
    monkeypatch.setenv("AVDATA_TEST_OF", str(root))  # Ray's processes have what it is started with.

    def lose() -> None:
        os.kill(max(processes("RayTrainWorker", f"AVDATA_TEST_OF={root}")), signal.SIGKILL)

    with lost(root, lose):
        train(root, dataset.root, CONFIG, Start(processes=2, restarts=1, ray=True))
    assert_same_to_the_bit(open_run(root), whole, tmp_path)


# Ray's cluster on one machine leaves a socket open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_ray_train_goes_on_with_fewer_when_a_machine_is_lost(
    dataset: Dataset, whole: Run, tmp_path: Path
) -> None:
    from ray.cluster_utils import Cluster

    root = tmp_path / "run"
    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        second = cluster.add_node(num_cpus=1)
        start = Start(processes=2, least=1, restarts=2, ray=True, address=cluster.address)
        with lost(root, lambda: cluster.remove_node(second, allow_graceful=False)):
            train(root, dataset.root, CONFIG, start)
    finally:
        cluster.shutdown()
    run = open_run(root)
    assert checkpoint.facts(run, CONFIG.steps)["processes"] == 1
    assert_same_but_for_rounding(run, whole)
