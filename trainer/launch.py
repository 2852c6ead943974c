"""Starts the training processes on this machine: torchrun, called as a function.

A process that fails for a reason it can name leaves word (`last_word`), so that the command can end
with that one line and not with torchrun's account of its children.
"""

import contextlib
import logging
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from avdata.errors import RunError
from avdata.trainer import checkpoint
from avdata.trainer.last_word import WORD, spoken
from avdata.trainer.parallel import threads_of_each
from avdata.trainer.run import Run

SHUTDOWN_SECONDS = 600


def launch(run: Run, processes: int, restarts: int = 0) -> None:
    """Trains with so many processes; RunError when one fails or they are told to stop.

    When one is lost all are started again, up to `restarts` times; not where one could say why.
    """
    quiet = logging.getLogger("torch.distributed.elastic")  # Its children have levels of their own.
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    options = ["--standalone", "--nproc-per-node", str(processes), "--max-restarts", str(restarts)]
    # A checkpoint must be written between the signal and the kill.
    options += ["--shutdown-timeout", str(SHUTDOWN_SECONDS), "-m", "avdata.trainer", str(run.root)]
    with tempfile.TemporaryDirectory() as folder, _undisturbed():
        word = Path(folder) / "word.json"
        os.environ[WORD] = str(word)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads_of_each(processes)))
        try:
            torchrun.main(options)
        except ChildFailedError as error:
            if word.exists():
                raise spoken(word) from None
            rank, failure = error.get_first_failure()
            raise RunError(
                f"{run.root}: process {rank} ended with {failure.exitcode}; its own words are above"
            ) from error
        except SignalException:
            raise RunError(f"{run.root}: stopped; the same command goes on from there") from None
        if word.exists():
            raise spoken(word)
    reached = checkpoint.latest(run) or 0
    if reached < run.config.steps:
        raise RunError(
            f"{run.root}: stopped at step {reached}; the same command goes on from there"
        )


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Undoes what torchrun leaves behind in a process: its signal handlers and variables."""
    signals = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT]
    handlers, variables = [signal.getsignal(one) for one in signals], dict(os.environ)
    try:
        yield
    finally:
        for one, handler in zip(signals, handlers, strict=True):
            signal.signal(one, handler)
        os.environ.clear()
        os.environ.update(variables)
