"""One group of processes a run: two that write into one folder would wreck each other's files."""

import contextlib
import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import torch.distributed as dist

from avdata import storage
from avdata.errors import UsageError
from avdata.trainer.group import Group
from avdata.trainer.stop import Stop

WAIT_SECONDS = 120.0
"""For processes whose launcher was killed: they end after their step and its checkpoint."""
PAUSE_SECONDS = 0.2


@contextmanager
def alone(root: Path, group: Group, stop: Stop) -> Iterator[None]:
    """Inside the block no other group trains the run: rank 0 locks RUN/lock, which the kernel
    frees when it is killed.

    UsageError on all processes where another one has it for longer than `WAIT_SECONDS`, or where
    this one is told to stop meanwhile.
    """
    with contextlib.ExitStack() as open_ones:
        refused: list[str | None] = [None]
        if group.rank == 0:
            refused[0] = _locked(root, open_ones.enter_context((root / "lock").open("a+")), stop)
        dist.broadcast_object_list(refused, src=0)
        if refused[0] is not None:
            raise UsageError(refused[0])
        yield


def _locked(root: Path, file: TextIO, stop: Stop) -> str | None:
    """What is to be said where it could not be locked."""
    until, told = time.monotonic() + WAIT_SECONDS, False
    while not _taken(root, file):
        file.seek(0)
        holder = f"{root}: another process ({file.read().strip()}) trains it"
        if stop.asked() or time.monotonic() >= until:
            return f"{holder}; end it, or train into a new folder"
        if not told:
            sys.stderr.write(f"avdata: {holder}; waits for its end, {WAIT_SECONDS:.0f} s at most\n")
        told = True
        time.sleep(PAUSE_SECONDS)
    file.truncate(0)
    file.write(f"pid {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return None


def _taken(root: Path, file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in storage.NO_LOCKS:
            raise
        sys.stderr.write(
            f"avdata: {root}: its file system has no locks ({error.strerror}); see to it that no "
            "other command trains into it\n"
        )
    return True
