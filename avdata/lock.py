"""One command a folder: two that write into one would wreck each other's files."""

import errno
import fcntl
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from avdata.errors import UsageError

NAME = "lock"
PAUSE_SECONDS = 0.2
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Of file systems that know no locks."""


@contextmanager
def alone(
    folder: Path, doing: str, way_out: str, seconds: float, stopped: Callable[[], bool] = bool
) -> Iterator[None]:
    """Inside the block no other process has the folder: FOLDER/lock is locked, which the kernel
    frees when this one is killed. `doing` says what it does to the folder: "trains", "writes".

    UsageError, which ends with `way_out`, where another has it for longer than so many `seconds`,
    or where this one is `stopped` meanwhile.
    """
    with (folder / NAME).open("a+") as file:
        until, told = time.monotonic() + seconds, False
        while not _taken(folder, file):
            file.seek(0)
            holder = f"{folder}: another process ({file.read().strip()}) {doing} it"
            if stopped() or time.monotonic() >= until:
                raise UsageError(f"{holder}; {way_out}")
            if not told:
                sys.stderr.write(f"avdata: {holder}; waits for its end, {seconds:.0f} s at most\n")
            told = True
            time.sleep(PAUSE_SECONDS)
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def _taken(folder: Path, file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        sys.stderr.write(
            f"avdata: {folder}: its file system has no locks ({error.strerror}); see to it that no "
            "other command writes there\n"
        )
    return True
