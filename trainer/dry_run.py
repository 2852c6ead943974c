"""`--dry-run`: what a run will do and take, before anything is written or trained."""

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from avdata.encoders.device import usable
from avdata.encoders.spec import Specs
from avdata.trainer.batch import Batch
from avdata.trainer.config import TrainConfig
from avdata.trainer.data.plan import Plan
from avdata.trainer.denoise import computing
from avdata.trainer.flow import flow_loss
from avdata.trainer.group import Group
from avdata.trainer.loader import Loader, open_loader
from avdata.trainer.model.avfulldit import AVFullDiT
from avdata.trainer.model.cost import Cost, cost_of_latents, meta_model
from avdata.trainer.model.footprint import saved_bytes
from avdata.trainer.model.units import require_backend, units
from avdata.trainer.parallel import mesh_shape, threads_of_each
from avdata.trainer.surgery import begin_from
from avdata.trainer.track import require_installed

PLANNED = 20_000
"""So many steps are looked at; a longer run has the same shares."""
ASSUMED_MFU = 0.35
"""Where a device's peak is given and its pace cannot be measured here."""
SHARE_OF_MEMORY = 0.5
"""The most that the state of a model may take for it to be timed here."""


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
        **_state_gib(model, config, processes),
        "activations": max(
            _activations_gib(model, config, dataset.specs, one, at_once) for one in shapes.values()
        ),
    }
    with _threads(threads_of_each(processes)):
        seconds, how = _seconds(loader, config, costs, work, sum(memory.values()))
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


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """As many as a process of training has beside the others, unless the user says how many."""
    before = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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


def _state_gib(model: AVFullDiT, config: TrainConfig, processes: int) -> dict[str, float]:
    """Everything that is kept in float32; FSDP also gathers one layer and the next."""
    every = sum(one.numel() for one in model.parameters())
    trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
    sharded, half = config.parallel.kind == "fsdp", config.precision == "bfloat16"
    share = (config.parallel.shard or processes) if sharded else 1
    found = {
        "weights": 4 * every / share,
        "gradients": 4 * trained / share,
        "optimizer": 8 * trained / share,
        "averages": 4 * trained / share if config.ema_decay is not None else 0.0,
    }
    if half and not sharded:
        # Autocast casts each weight once and keeps it until the forward pass has ended.
        found["bfloat16 copies"] = 2.0 * every
    if sharded:
        width = 2 if half else 4
        layers = units(model)
        sizes = [
            sum(p.numel() for module in (one.called, *one.within) for p in module.parameters())
            for one in layers
        ]
        # Two layers' weights, one layer's gradients, and all that is outside of layers.
        rest = every - sum(sizes)
        found["gathered"] = width * 2 * max(sizes) + 4 * max(sizes) + 8.0 * rest
    return {name: size / 2**30 for name, size in found.items()}


def _activations_gib(
    model: AVFullDiT,
    config: TrainConfig,
    specs: Specs,
    shapes: tuple[tuple[int, ...], int],
    at_once: int,
) -> float:
    saved = saved_bytes(model, specs, *shapes, at_once)
    if config.activation_checkpointing:
        # One layer's at a time, and what goes into each.
        count = len(units(model))
        tokens = shapes[0][1] * shapes[0][2] * shapes[0][3] // 4 + shapes[1]
        saved = saved // count + count * tokens * config.model.video_width * 4 * at_once
    return saved * (0.6 if config.precision == "bfloat16" else 1.0) / 2**30


def _seconds(
    loader: Loader,
    config: TrainConfig,
    costs: dict[str, Cost],
    work: float,
    needed_gib: float,
) -> tuple[float | None, str]:
    """`work` is what a process computes in a mean step."""
    device = usable(config.device)
    if needed_gib < SHARE_OF_MEMORY * _free_gib(device):
        (batch,) = (one.to(device) for one in loader.batches(0, 1))
        spent = costs[loader.plan.batch(0).bucket].flops_step * len(batch.share)
        return _timed(loader, config, batch, device) * work / spent, f"timed on this {device.type}"
    if config.peak_tflops is not None:
        seconds = work / (config.peak_tflops * 1e12 * ASSUMED_MFU)
        return seconds, f"if {ASSUMED_MFU:.0%} of {config.peak_tflops:g} TFLOP/s are reached"
    return None, f"as the model is too large for this {device.type}; give peak_tflops"


def _timed(loader: Loader, config: TrainConfig, batch: Batch, device: torch.device) -> float:
    """Seconds of one forward and backward pass, the second of two."""
    dataset = loader.source.dataset
    model = AVFullDiT.build(config.model, dataset.specs, dataset.clip, config.mode, 0).to(device)
    if config.activation_checkpointing:
        model.checkpoint_activations()
    took = 0.0
    for _ in range(2):
        began = time.monotonic()
        with computing(config, device):
            losses = flow_loss(model, batch.video, batch.audio, batch.u, batch.share)
        losses.total.backward()
        model.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        took = time.monotonic() - began
    return took


def _free_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 2**30
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
