"""Training processes on Ray Train: elastic in number, started again when one is lost.

The same function as under torchrun; every start goes on from the newest checkpoint. Data is read
by avdata's own loader, whose order is exact at any number of processes.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avdata.errors import AvdataError, RunError
from avdata.jobs.engine import Engine, joined_ray
from avdata.trainer import checkpoint
from avdata.trainer.last_word import speak, spoken
from avdata.trainer.run import Run, open_run

WORD_FILE = "last-word.json"


@dataclass(frozen=True, slots=True)
class RayConfig:
    """How many processes, and how often they may be lost."""

    most: int
    least: int
    restarts: int
    address: str | None = None
    """A cluster, whose machines must see run and shards at the same paths; None is this machine."""


def launch_on_ray(run: Run, config: RayConfig) -> None:
    """Trains with as many processes as there is room for; RunError or UsageError when it fails."""
    word = run.root / WORD_FILE
    word.unlink(missing_ok=True)
    root = str(run.root.resolve())
    with joined_ray(Engine(address=config.address, workers=config.most)):
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
        from ray.train.torch import TorchTrainer

        logging.getLogger("ray.train").setLevel(logging.ERROR)
        resources: Any = ray.cluster_resources
        gpus = run.config.device != "cpu" and resources().get("GPU", 0) > 0
        elastic: Any = config.most
        if config.least < config.most:
            elastic = (config.least, config.most)
        trainer = TorchTrainer(
            _work,
            train_loop_config={"root": root},
            scaling_config=ScalingConfig(num_workers=elastic, use_gpu=gpus),
            run_config=RunConfig(
                name="train",
                storage_path=f"{root}/ray",
                failure_config=FailureConfig(max_failures=config.restarts),
            ),
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            if not word.exists():
                said = str(error).strip().splitlines()[-1]
                raise RunError(f"{run.root}: Ray lost its processes ({said})") from error
    if word.exists():
        raise spoken(word)
    reached = checkpoint.latest(run) or 0
    if reached < run.config.steps:
        raise RunError(f"{run.root}: stopped at step {reached}; the same command goes on")


def _work(settings: dict[str, str]) -> None:
    """One process. An error of ours would be the same at every restart, so it is the last."""
    from avdata.trainer.train import train

    root = Path(settings["root"])
    if (root / WORD_FILE).exists():
        return
    try:
        train(open_run(root))
    except AvdataError as error:
        speak(error, root / WORD_FILE)
        raise
