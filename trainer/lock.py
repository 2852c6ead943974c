"""One group of processes a run: two that write into one folder would wreck each other's files."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist

from avdata import lock
from avdata.errors import UsageError
from avdata.trainer.group import Group
from avdata.trainer.stop import Stop

WAIT_SECONDS = 120.0
"""For processes whose launcher was killed: they end after their step and its checkpoint."""


@contextmanager
def alone(root: Path, group: Group, stop: Stop) -> Iterator[None]:
    """Inside the block no other group trains the run: rank 0 has RUN/lock.

    UsageError on all processes where another one has it for longer than `WAIT_SECONDS`, or where
    this one is told to stop meanwhile.
    """
    with contextlib.ExitStack() as held:
        refused: list[str | None] = [None]
        if group.rank == 0:
            way_out = "end it, or train into a new folder"
            try:
                mine = lock.alone(root, "trains", way_out, WAIT_SECONDS, stop.asked)
                held.enter_context(mine)
            except UsageError as error:
                refused[0] = str(error)
        dist.broadcast_object_list(refused, src=0)
        if refused[0] is not None:
            raise UsageError(refused[0])
        yield
