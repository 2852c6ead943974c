"""Checkpoints: torch's distributed format in a folder that is whole once it has its final name.

    RUN/checkpoints/step-00000100/                  tensors of weights, optimizer and averages by
                                                    name, and their metadata
    RUN/checkpoints/step-00000100/checkpoint.json   step, configuration, digests, sizes of the files

They say nothing of ranks, so a run may go on with another number of processes, or sharded where
it was not. `saver` writes them.
"""

from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint import CheckpointException, FileSystemReader
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)

from avdata import storage
from avdata.errors import RunError, UsageError
from avdata.trainer.ema import Ema
from avdata.trainer.run import Run, saved_steps

Weights = Literal["raw", "ema"]
FACTS = "checkpoint.json"


def latest(run: Run) -> int | None:
    """Step of the newest whole checkpoint."""
    return max(saved_steps(run.checkpoints), default=None)


def latest_for_all(run: Run) -> int | None:
    """The same, as rank 0 sees it: all processes must go on from one step."""
    found = [latest(run)]
    dist.broadcast_object_list(found, src=0)
    return found[0]


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema | None) -> dict[str, Any]:
    """All that a checkpoint holds, by name; every process has its shards of it."""
    weights, moments = get_state_dict(model, optimizer)
    state: dict[str, Any] = {"model": weights, "optimizer": moments}
    return state | ({"ema": ema.averages} if ema else {})


def load(
    run: Run, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema | None
) -> None:
    """Puts a checkpoint into model, optimizer and averages; all ranks call it."""
    state = state_of(model, optimizer, ema)
    _read(run, step, state)
    set_state_dict(
        model,
        optimizer,
        model_state_dict=state["model"],
        optim_state_dict=state["optimizer"],
    )


def load_model(run: Run, model: nn.Module, weights: Weights = "raw") -> int:
    """The newest checkpoint's weights, or their averages, into a model; answers its step.

    UsageError where there is no checkpoint, or no averages in it.
    """
    step = latest(run)
    if step is None:
        raise UsageError(f"{run.root}: no checkpoint yet; train it first")
    state: dict[str, Any] = {"model": get_model_state_dict(model)}
    if weights == "ema":
        state["ema"] = _averaged(run, step, state["model"])
    _read(run, step, state)
    # What was not trained has no average.
    set_model_state_dict(model, state["model"] | state.get("ema", {}))
    return step


def facts(run: Run, step: int) -> dict[str, Any]:
    """checkpoint.json; RunError when it is damaged."""
    return storage.read_json(folder_of(run.checkpoints, step) / FACTS)


def folder_of(root: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return root / f"step-{step:08d}"


def _averaged(run: Run, step: int, model: dict[str, Tensor]) -> dict[str, Tensor]:
    metadata = FileSystemReader(folder_of(run.checkpoints, step)).read_metadata()
    saved = {name.removeprefix("ema.") for name in metadata.state_dict_metadata}
    found = {name: torch.empty_like(value) for name, value in model.items() if name in saved}
    if not any(name.startswith("ema.") for name in metadata.state_dict_metadata):
        raise UsageError(f"{run.root}: has no averages, as ema_decay is none; take weights = raw")
    return found


def _read(run: Run, step: int, state: dict[str, Any]) -> None:
    folder = folder_of(run.checkpoints, step)
    way_out = "remove it and an older one is used"
    for name, size in facts(run, step)["files"].items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != size:
            raise RunError(f"{folder}: cannot be read ({name} is cut short or missing); {way_out}")
    try:
        dcp.load(state, checkpoint_id=folder)
    except CheckpointException as error:
        reason = str(error).splitlines()[0][:200]
        raise RunError(f"{folder}: cannot be read ({reason}); {way_out}") from error
