"""Starts the training processes on this machine: torchrun, called as a function.

A process that fails for a reason it can name leaves word in a file, so that the command can end
with that one line and not with torchrun's account of its children.
"""

import json
import logging
import os
import tempfile
from pathlib import Path

from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from avdata.errors import AvdataError, RunError, UsageError
from avdata.trainer.run import Run

WORD = "AVDATA_LAST_WORD"


def launch(run: Run, processes: int) -> None:
    """Trains with so many processes; RunError when one fails or they are told to stop."""
    if run.config.batch_size % processes:
        raise UsageError(
            f"batch_size = {run.config.batch_size} is not a multiple of {processes} processes; "
            f"use --set batch_size={processes * max(1, run.config.batch_size // processes)}"
        )
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    options = ["--standalone", "--nproc-per-node", str(processes), "-m", "avdata.trainer"]
    with tempfile.TemporaryDirectory() as folder:
        word = Path(folder) / "word.json"
        os.environ[WORD] = str(word)
        try:
            torchrun.main([*options, str(run.root)])
        except ChildFailedError as error:
            if word.exists():
                raise _spoken(word) from None
            rank, failure = error.get_first_failure()
            raise RunError(
                f"{run.root}: process {rank} ended with {failure.exitcode}; its own words are above"
            ) from error
        except SignalException:
            raise RunError(f"{run.root}: stopped; the same command goes on from there") from None
        finally:
            del os.environ[WORD]


def leave_word(error: AvdataError) -> None:
    """Called by a training process before it ends."""
    if WORD in os.environ:
        told = {"message": str(error), "exit_code": error.exit_code}
        Path(os.environ[WORD]).write_text(json.dumps(told))


def _spoken(word: Path) -> AvdataError:
    told = json.loads(word.read_text())
    return (UsageError if told["exit_code"] == UsageError.exit_code else RunError)(told["message"])
