"""`--dry-run`: what a run will do and take, before anything is written or trained."""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from avdata.trainer.config import TrainConfig
from avdata.trainer.data.plan import Plan
from avdata.trainer.group import Group
from avdata.trainer.loader import Loader, open_loader
from avdata.trainer.memory_forecast import activations_gib, state_gib
from avdata.trainer.model.cost import Cost, cost_of_latents, meta_model
from avdata.trainer.model.units import require_backend
from avdata.trainer.parallel import mesh_shape
from avdata.trainer.surgery import begin_from
from avdata.trainer.time_forecast import beside_others, seconds_a_step
from avdata.trainer.track import require_installed

PLANNED = 20_000
"""So many steps are looked at; a longer run has the same shares."""


@dataclass(frozen=True, slots=True)
class BucketForecast:
    """Of one shape of clip."""

    steps: int
    video: list[int]
    """Shape of the latents."""
    tokens: int
    tflop_a_seat: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """All of it; memory is of one process, in GiB."""

    steps: int
    epochs: float
    batch_size: int
    seats_a_process: int
    parts_a_step: int
    buckets: dict[str, BucketForecast]
    parameters: int
    trained_parameters: int
    memory_gib: dict[str, float]
    """`activations` is an estimate; the others follow from the counts."""
    seconds_a_step: float | None
    how: str
    """How the seconds were found."""

    def lines(self) -> Iterator[str]:
        """For people."""
        yield (
            f"{self.steps} steps, {self.epochs:.2f} epochs; {self.batch_size} clips a step, "
            f"{self.seats_a_process} a process in {self.parts_a_step} parts"
        )
        for name, one in self.buckets.items():
            yield (
                f"bucket {name}: {one.steps} steps, latents {one.video}, {one.tokens} tokens, "
                f"{one.tflop_a_seat:.3g} TFLOP a clip"
            )
        yield f"{self.parameters:,} parameters, {self.trained_parameters:,} of them trained"
        parts = ", ".join(f"{name} {gib:.2f}" for name, gib in self.memory_gib.items())
        yield f"memory of a process: {sum(self.memory_gib.values()):.2f} GiB ({parts})"
        if self.seconds_a_step is None:
            yield f"time: not known, {self.how}"
        else:
            hours = self.seconds_a_step * self.steps / 3600
            yield f"time: {self.seconds_a_step:.3g} s a step, {hours:.3g} h in all, {self.how}"

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def forecast(shards: Path, config: TrainConfig, processes: int) -> Forecast:
    """For so many processes; UsageError where the shards cannot be trained on so.

    Pretrained towers are looked at, not read.
    """
    _require_possible(config, processes)
    if (warning := config.warning()) is not None:
        sys.stderr.write(f"avdata: {warning}\n")
    loader = open_loader(shards, config, Group(0, processes, torch.device("cpu")))
    dataset = loader.source.dataset
    model = meta_model(config.model, dataset.specs, dataset.clip, config.mode)
    begin_from(model, config)
    if config.trained == "new":
        model.freeze_towers()
    plans = [loader.plan.batch(step) for step in range(min(config.steps, PLANNED))]
    counts = Counter(plan.bucket for plan in plans)
    shapes = {p.bucket: _shapes(loader, int(p.rows[0])) for p in plans}
    costs = {name: cost_of_latents(model, dataset.specs, *one) for name, one in shapes.items()}
    largest = max(len(plan.rows) for plan in plans)
    seats = -(-largest // processes)
    at_once = min(seats, config.micro_batch_size or seats)
    mean = sum(counts[name] * costs[name].flops_step for name in counts) / len(plans)
    work = mean * seats
    memory = {
        **state_gib(model, config, processes),
        "activations": max(
            activations_gib(model, config, dataset.specs, one, at_once) for one in shapes.values()
        ),
    }
    with beside_others(processes):
        seconds, how = seconds_a_step(loader, config, costs, work, sum(memory.values()))
    return Forecast(
        steps=config.steps,
        epochs=_epochs(loader.plan, config.steps),
        batch_size=largest,
        seats_a_process=seats,
        parts_a_step=-(-seats // at_once),
        buckets={
            name: _bucket(
                round(counts[name] * config.steps / len(plans)), shapes[name], costs[name]
            )
            for name in sorted(counts)
        },
        parameters=sum(one.numel() for one in model.parameters()),
        trained_parameters=sum(one.numel() for one in model.parameters() if one.requires_grad),
        memory_gib=memory,
        seconds_a_step=seconds,
        how=how,
    )


def _require_possible(config: TrainConfig, processes: int) -> None:
    """UsageError where training would end with one before its first step."""
    require_installed(config.track)
    if config.parallel.kind == "fsdp":
        mesh_shape(config.parallel, processes)
    if config.compile is not None:
        require_backend(config.compile)


def _epochs(plan: Plan, steps: int) -> float:
    epoch = plan.epoch_of(steps)
    begin = plan.steps_before(epoch)
    return epoch + (steps - begin) / (plan.steps_before(epoch + 1) - begin)


def _bucket(steps: int, shapes: tuple[tuple[int, ...], int], cost: Cost) -> BucketForecast:
    tokens = cost.tokens_video + cost.tokens_audio
    return BucketForecast(steps, list(shapes[0]), tokens, cost.flops_step / 1e12)


def _shapes(loader: Loader, row: int) -> tuple[tuple[int, ...], int]:
    """Of a sample's video latents, and the length of its audio's."""
    members = loader.source.table.sample(row).members
    return tuple(members["video.npy"].shape), int(members["audio.npy"].shape[-1])
