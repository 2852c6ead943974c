"""Checkpoints: torch's distributed format in a folder that is whole once it has its final name.

    RUN/checkpoints/step-00000100/   tensors of model and optimizer by name, and their metadata

They say nothing of ranks, so a run may go on with another number of processes.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)

from avdata.errors import RunError, UsageError
from avdata.trainer.run import Run


def latest(run: Run) -> int | None:
    """Step of the newest whole checkpoint."""
    return max(_steps(run.checkpoints), default=None)


def save(run: Run, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Commits a checkpoint and removes those beyond `keep_checkpoints`; all ranks call it."""
    final = _folder(run.checkpoints, step)
    temporary = final.with_name(final.name + ".tmp")
    if dist.get_rank() == 0:
        for left in run.checkpoints.glob("step-*.tmp"):  # Of a save or a removal that was killed.
            shutil.rmtree(left)
    dist.barrier()
    dcp.save(_state(model, optimizer), checkpoint_id=temporary)
    dist.barrier()
    if dist.get_rank() == 0:
        temporary.rename(final)
        for old in sorted(_steps(run.checkpoints))[: -run.config.keep_checkpoints]:
            leaving = _folder(run.checkpoints, old)
            shutil.rmtree(leaving.rename(leaving.with_name(leaving.name + ".tmp")))
    dist.barrier()


def load(run: Run, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Puts a checkpoint into model and optimizer; all ranks call it."""
    state = _state(model, optimizer)
    _read(run, step, state)
    set_state_dict(
        model,
        optimizer,
        model_state_dict=state["model"],
        optim_state_dict=state["optimizer"],
    )


def load_model(run: Run, model: nn.Module) -> int:
    """The newest checkpoint's weights into a model; answers its step."""
    step = latest(run)
    if step is None:
        raise UsageError(f"{run.root}: no checkpoint yet; train it first")
    state = {"model": get_model_state_dict(model)}
    _read(run, step, state)
    set_model_state_dict(model, state["model"])
    return step


def _read(run: Run, step: int, state: dict[str, Any]) -> None:
    folder = _folder(run.checkpoints, step)
    try:
        dcp.load(state, checkpoint_id=folder)
    except CheckpointException as error:
        raise RunError(
            f"{folder}: cannot be read ({str(error).splitlines()[0][:200]}); "
            "remove it and an older one is used"
        ) from error


def _state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    weights, moments = get_state_dict(model, optimizer)
    return {"model": weights, "optimizer": moments}


def _folder(root: Path, step: int) -> Path:
    return root / f"step-{step:08d}"


def _steps(root: Path) -> list[int]:
    return [int(path.name[5:]) for path in root.glob("step-????????") if path.is_dir()]
