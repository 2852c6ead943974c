"""`avdata train`: a prepared run, then as many processes as asked for."""

from dataclasses import dataclass
from pathlib import Path

from avdata.errors import UsageError
from avdata.trainer import checkpoint
from avdata.trainer.config import TrainConfig
from avdata.trainer.launch import launch
from avdata.trainer.metrics import read_metrics
from avdata.trainer.run import Run, prepare
from avdata.trainer.track import require_installed


@dataclass(frozen=True, slots=True)
class Start:
    """Which processes train, and who starts them."""

    processes: int = 1
    restarts: int = 0
    """So often when one is lost; each goes on from the newest checkpoint."""
    ray: bool = False
    """By Ray Train, else by torchrun on this machine."""
    least: int | None = None
    """With Ray: elastic between so many and `processes`."""
    address: str | None = None
    """With Ray: a cluster."""

    def __post_init__(self) -> None:
        if not self.ray and (self.least is not None or self.address is not None):
            raise UsageError("--min-processes and --address are for --ray")
        if self.least is not None and self.least > self.processes:
            raise UsageError(f"--min-processes {self.least} exceeds --processes {self.processes}")


def train(root: Path, shards: Path, config: TrainConfig, start: Start = Start()) -> Run:
    """Trains, or goes on from the newest checkpoint; a finished run is left as it is."""
    require_installed(config.track)
    run = prepare(root, shards, config)
    if (checkpoint.latest(run) or 0) >= config.steps:
        return run
    if start.ray:
        from avdata.jobs.ray_train import RayConfig, launch_on_ray

        least = start.least or start.processes
        launch_on_ray(run, RayConfig(start.processes, least, start.restarts, start.address))
    else:
        launch(run, start.processes, start.restarts)
    return run


def progress_of(run: Run) -> dict[str, float | int | str | None]:
    """Where a run stands: the losses it began and ended with, each a mean over a tenth of the steps
    that were applied.
    """
    lines = read_metrics(run.metrics)
    if not lines:
        return {"step": 0}
    applied = [line for line in lines if not line.get("skipped")]
    tenth = max(1, len(applied) // 10)
    out: dict[str, float | int | str | None] = {"mode": run.config.mode, "step": lines[-1]["step"]}
    for name in ("loss_video", "loss_audio"):
        if applied and applied[-1][name] is not None:
            out[f"{name}_first"] = sum(line[name] for line in applied[:tenth]) / tenth
            out[f"{name}_last"] = sum(line[name] for line in applied[-tenth:]) / tenth
    measured = [line for line in lines if "val_loss_video" in line]
    for name in ("val_loss_video", "val_loss_audio"):
        if measured and name in measured[-1]:
            out[name] = measured[-1][name]
    return out
