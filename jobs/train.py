"""`avdata train`: a prepared run, then as many processes as asked for."""

from pathlib import Path

from avdata.trainer import checkpoint
from avdata.trainer.config import TrainConfig
from avdata.trainer.launch import launch
from avdata.trainer.metrics import read_metrics
from avdata.trainer.run import Run, prepare


def train(root: Path, shards: Path, config: TrainConfig, processes: int) -> Run:
    """Trains, or goes on from the newest checkpoint; a finished run is left as it is."""
    run = prepare(root, shards, config)
    if (checkpoint.latest(run) or 0) < config.steps:
        launch(run, processes)
    return run


def progress_of(run: Run) -> dict[str, float | int | str | None]:
    """Where a run stands: the losses at its first and its last step, each a mean over a tenth."""
    lines = read_metrics(run.metrics)
    if not lines:
        return {"step": 0}
    tenth = max(1, len(lines) // 10)
    out: dict[str, float | int | str | None] = {"mode": run.config.mode, "step": lines[-1]["step"]}
    for name in ("loss_video", "loss_audio"):
        if lines[-1][name] is not None:
            out[f"{name}_first"] = sum(line[name] for line in lines[:tenth]) / tenth
            out[f"{name}_last"] = sum(line[name] for line in lines[-tenth:]) / tenth
    measured = [line for line in lines if "val_loss_video" in line]
    for name in ("val_loss_video", "val_loss_audio"):
        if measured and name in measured[-1]:
            out[name] = measured[-1][name]
    return out
