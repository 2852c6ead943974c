"""Writes checkpoints beside training: one at a time, committed by a rename, old ones removed.

Tensors are copied to host memory while training waits; a thread writes them. A checkpoint that
cannot be written, as on a full disk, is dropped; the last good one stays.
"""

import os
import shutil
import sys
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import CheckpointException
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from avdata import storage
from avdata.errors import RunError
from avdata.trainer.checkpoint import FACTS, folder_of
from avdata.trainer.group import Group
from avdata.trainer.run import saved_steps


@dataclass(frozen=True, slots=True)
class SaverConfig:
    """How checkpoints are kept."""

    keep: int
    background: bool
    allowed_failures: int
    """So many in a row, then `gave_up`."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A checkpoint that is being written."""

    step: int
    facts: dict[str, Any]
    future: "Future[Any]"


class Saver:
    """Of one process; all make the same calls at the same steps."""

    def __init__(self, root: Path, config: SaverConfig, group: Group) -> None:
        self._root, self._config, self._group = root, config, group
        # Its own: training's messages must not meet those of the thread.
        talk = dist.new_group(backend="gloo")
        assert isinstance(talk, dist.ProcessGroup)
        self._talk = talk
        pinned = group.device.type == "cuda"
        self._stager = DefaultStager(StagingOptions(pinned, False, False, pinned))
        self._pending: Pending | None = None
        self._failures = 0
        self._stalled = 0.0
        if group.rank == 0:
            for left in root.glob("step-*.tmp"):  # Of a save or a removal that was killed.
                shutil.rmtree(left)
        dist.barrier(self._talk)

    @property
    def gave_up(self) -> bool:
        """Whether too many failed; processes may see it at different moments."""
        return self._failures > self._config.allowed_failures

    def save(self, step: int, state: dict[str, Any], facts: dict[str, Any], *, last: bool) -> None:
        """Begins to write what `state` holds now; where `last`, it is there when this returns.

        RunError on all processes when the last one cannot be written.
        """
        began = time.monotonic()
        self.wait()
        future = dcp.async_save(
            state,
            checkpoint_id=self._temporary(step),
            process_group=self._talk,
            async_stager=self._stager,
        )
        assert isinstance(future, Future)  # As staging is not asynchronous.
        self._pending = Pending(step, facts, future)
        if last or not self._config.background:
            self.wait()
            if last and self._failed_for_any():
                raise RunError(
                    f"{folder_of(self._root, step)}: could not be written; make room and give the "
                    f"same command, which goes on from the checkpoint before"
                )
        self._stalled += time.monotonic() - began

    def poll(self) -> None:
        """Commits what has been written meanwhile."""
        if self._pending is not None and self._pending.future.done():
            self.wait()

    def wait(self) -> None:
        """Until nothing is being written any more."""
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        first = self._group.rank == 0
        try:
            pending.future.result()
            if first:
                self._commit(pending)
        except (CheckpointException, OSError) as error:
            self._failures += 1
            self._drop(pending, error)
            return
        self._failures = 0
        if first:
            self._prune()

    def _failed_for_any(self) -> bool:
        """A commit that fails is known to the first process alone."""
        told = torch.tensor(self._failures)
        dist.all_reduce(told, op=dist.ReduceOp.MAX, group=self._talk)
        return bool(told)

    def stalled(self) -> float:
        """Seconds that training has waited since this was last asked."""
        seconds, self._stalled = self._stalled, 0.0
        return seconds

    def close(self) -> None:
        """After the last one."""
        self.wait()
        self._stager.close()

    def _commit(self, pending: Pending) -> None:
        temporary, final = self._temporary(pending.step), folder_of(self._root, pending.step)
        files = {one.name: one.stat().st_size for one in sorted(temporary.iterdir())}
        storage.write_json(temporary / FACTS, {**pending.facts, "files": files})
        _sync(temporary)
        temporary.rename(final)
        _sync(self._root)

    def _prune(self) -> None:
        """Old ones that cannot be removed are told; the new one is whole."""
        for old in sorted(saved_steps(self._root))[: -self._config.keep]:
            leaving = folder_of(self._root, old)
            try:
                shutil.rmtree(leaving.rename(self._temporary(old)))
            except OSError as error:
                sys.stderr.write(
                    f"avdata: {leaving}: an old checkpoint that cannot be removed ({error}); "
                    "training goes on\n"
                )

    def _drop(self, pending: Pending, error: BaseException) -> None:
        if self._group.rank:
            return
        shutil.rmtree(self._temporary(pending.step), ignore_errors=True)
        sys.stderr.write(
            f"avdata: {folder_of(self._root, pending.step)}: not written ({_cause(error)}; "
            f"{shutil.disk_usage(self._root).free / 1e9:.3g} GB free there); "
            "the checkpoint before it stays the newest\n"
        )

    def _temporary(self, step: int) -> Path:
        final = folder_of(self._root, step)
        return final.with_name(final.name + ".tmp")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cause(error: BaseException) -> str:
    """The first process's own words out of what torch collects."""
    if isinstance(error, CheckpointException):
        for failure in error.failures.values():
            return str(failure[0] if isinstance(failure, tuple) else failure)
    return str(error)
