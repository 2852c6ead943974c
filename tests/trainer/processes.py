"""Real training processes with gloo between them, forked from a server that has torch loaded."""

import multiprocessing
import os
import resource
import signal
import socket
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

CONTEXT = multiprocessing.get_context("forkserver")


def start(
    root: Path, world: int = 1, file_limit: int | None = None, dies_after: int | None = None
) -> list[BaseProcess]:
    """So many processes train the prepared run; no file that they write may exceed the limit, and
    the first one is killed once it has reported that step.
    """
    CONTEXT.set_forkserver_preload(["avdata.trainer.train"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started: list[BaseProcess] = []
    for rank in range(world):
        one = CONTEXT.Process(target=_work, args=(root, rank, world, port, file_limit, dies_after))
        one.start()
        started.append(one)
    return started


def ended(processes: list[BaseProcess]) -> list[int | None]:
    """Their exit codes; how long it may take is for the test's own limit to say."""
    for one in processes:
        one.join()
    return [one.exitcode for one in processes]


def killed(processes: list[BaseProcess]) -> None:
    """All of them at once, as a machine that loses its power."""
    for one in processes:
        one.kill()
    for one in processes:
        one.join()


def trained(root: Path, world: int = 1) -> None:
    """To the end."""
    codes = ended(start(root, world))
    assert codes == [0] * world, (root / "stderr-0.txt").read_text()


def _work(
    root: Path, rank: int, world: int, port: int, file_limit: int | None, dies_after: int | None
) -> None:
    import torch

    from avdata.errors import AvdataError
    from avdata.trainer.metrics import MetricsFile
    from avdata.trainer.run import open_run
    from avdata.trainer.train import train

    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    add = MetricsFile.add

    def add_and_die(file: MetricsFile, line: dict[str, Any]) -> None:
        add(file, line)
        if line["step"] == dies_after:
            os.kill(os.getpid(), signal.SIGKILL)

    mock.patch.object(MetricsFile, "add", add_and_die).start()
    torch.set_num_threads(1)
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    log = os.open(root / f"stderr-{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 2)
    try:
        train(open_run(root))
    except AvdataError as error:
        sys.stderr.write(f"avdata: {error}\n")
        sys.stderr.flush()
        os._exit(error.exit_code)
