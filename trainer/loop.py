"""The training loop: global batches, one optimizer step each, under DistributedDataParallel.

It can be stopped at any step (SIGTERM and SIGINT make a checkpoint first) and goes on from the
newest checkpoint: to the bit with as many processes, with the same batches and noise with others.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from avdata import storage
from avdata.errors import RunError
from avdata.pipeline.shards.dataset import SampleEntry
from avdata.progress import progress
from avdata.trainer import checkpoint
from avdata.trainer.batch import Batch
from avdata.trainer.config import TrainConfig
from avdata.trainer.flow import Losses, flow_loss, own_times, times
from avdata.trainer.group import Group, joined
from avdata.trainer.loader import Loader, open_loader
from avdata.trainer.metrics import MetricsFile
from avdata.trainer.model.avfulldit import AVFullDiT
from avdata.trainer.run import Run
from avdata.trainer.surgery import start_from
from avdata.trainer.validate import validate


@dataclass(frozen=True, slots=True)
class Work:
    """What one process trains with."""

    run: Run
    group: Group
    model: AVFullDiT
    parallel: nn.Module
    """The model whose gradients are shared."""
    optimizer: torch.optim.Optimizer
    loader: Loader
    held_out: list[SampleEntry]


def train(run: Run) -> int:
    """Trains to `steps` or until it is told to stop; answers the step reached.

    Every process of the group calls it.
    """
    launcher = os.getppid()
    with joined(run.config.device) as group, _stop_signal() as stop:
        first = checkpoint.latest(run) or 0
        work = _set_up(run, group, pretrained=first == 0)
        if first:
            checkpoint.load(run, first, work.parallel, work.optimizer)
        reached = first
        # Rank 0 has cut the metrics file before anyone trains on.
        with _reporting(work, first) as report:
            dist.barrier()
            for step, batch, waited in _timed(work.loader.batches(first, run.config.steps), first):
                reached = step + 1
                line = _step(work, step, batch, waited)
                stopping = _agreed(bool(stop) or _orphaned(launcher), group)
                last = reached == run.config.steps
                if not stopping and (last or reached % run.config.val_every == 0):
                    line |= _validated(work)
                # Reported first: what is in a checkpoint is in the metrics, too.
                report(line)
                if stopping or last or reached % run.config.checkpoint_every == 0:
                    checkpoint.save(run, reached, work.parallel, work.optimizer)
                if stopping:
                    break
    return reached


def _set_up(run: Run, group: Group, *, pretrained: bool) -> Work:
    """`pretrained` reads the towers that the run starts from; a checkpoint has them."""
    config = run.config
    run.require_shards()
    if group.device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // group.world))
    model = AVFullDiT.build(config.model, run.specs, run.clip, config.mode, config.seed)
    if pretrained:
        start_from(run, model, report=group.rank == 0)
    if config.trained == "new":
        model.freeze_towers()
    if config.activation_checkpointing:
        model.checkpoint_activations()
    model = model.to(group.device)
    ids = [group.device] if group.device.type == "cuda" else None
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
    )
    loader = open_loader(run.shards, config, group, run.root / "quarantine.jsonl")
    held_out = loader.held_out(config.val_samples)
    parallel = DistributedDataParallel(model, device_ids=ids)
    return Work(run, group, model, parallel, optimizer, loader, held_out)


def _step(work: Work, step: int, batch: Batch, waited: float) -> dict[str, Any]:
    """One optimizer step; its line of metrics, the same on every rank but for the times."""
    config, group, began = work.run.config, work.group, time.monotonic()
    for options in work.optimizer.param_groups:
        options["lr"] = config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup_steps))
    losses = _loss(work, batch.to(group.device))
    # DDP takes the mean over ranks; the shares make it a sum.
    (losses.total * group.world).backward()
    norm = nn.utils.clip_grad_norm_(work.model.parameters(), config.clip_norm)
    heard = torch.zeros_like(losses.video) if losses.audio is None else losses.audio
    parts = torch.stack([losses.total, losses.video, heard]).detach()
    dist.all_reduce(parts)
    if not torch.isfinite(torch.stack([parts[0], norm])).all():
        raise RunError(
            f"{work.run.root}: step {step + 1} has loss {parts[0].item()} and gradient norm "
            f"{norm.item()}; train into a new folder with a lower learning_rate or in float32"
        )
    work.optimizer.step()
    work.optimizer.zero_grad()
    seconds = time.monotonic() - began + waited
    plan = work.loader.plan.batch(step)
    return {
        "step": step + 1,
        "epoch": plan.epoch,
        "loss": parts[0].item(),
        "loss_video": parts[1].item(),
        "loss_audio": None if losses.audio is None else parts[2].item(),
        "gradient_norm": float(norm),
        "learning_rate": work.optimizer.param_groups[0]["lr"],
        "seconds": seconds,
        "samples_per_second": plan.num_real / seconds,
        "data_wait_share": waited / seconds,
        "batch_digest": storage.digest_json(work.loader.keys(step)),
    }


def _validated(work: Work) -> dict[str, float]:
    found = validate(work.model, work.loader.reader, work.held_out, work.group)
    if work.model.mode == "t2v":
        found.pop("val_loss_audio", None)
    return found


def _loss(work: Work, batch: Batch) -> Losses:
    config, device = work.run.config, work.group.device
    u = batch.u if config.shared_time else own_times(batch.u)
    t = times(u, config.time_density, config.time_shift)
    half = config.precision == "bfloat16"
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
        weights = (config.lambda_video, config.lambda_audio)
        return flow_loss(work.parallel, batch.video, batch.audio, t, batch.share, weights)


def _timed(batches: Iterator[Batch], first: int) -> Iterator[tuple[int, Batch, float]]:
    """Each batch with its step and the seconds for which the loop had to wait for it."""
    step = first
    while True:
        began = time.monotonic()
        batch = next(batches, None)
        if batch is None:
            return
        yield step, batch, time.monotonic() - began
        step += 1


@contextlib.contextmanager
def _reporting(work: Work, first: int) -> Iterator[Any]:
    """A function that takes each line; only rank 0 writes and shows anything."""
    if work.group.rank != 0:
        yield lambda line: None  # noqa: ARG005 (the other ranks' silence)
        return
    config: TrainConfig = work.run.config
    with (
        MetricsFile(work.run.metrics, first) as file,
        progress(f"train {config.mode}", config.steps, min(first, config.steps)) as advance,
    ):

        def report(line: dict[str, Any]) -> None:
            file.add(line)
            heard = "" if line["loss_audio"] is None else f" audio {line['loss_audio']:.3f}"
            advance(f"loss: video {line['loss_video']:.3f}{heard}")

        yield report


@contextlib.contextmanager
def _stop_signal() -> Iterator[list[int]]:
    """A list that is no longer empty once a signal has asked this process to stop."""
    asked: list[int] = []

    def ask(number: int, _frame: FrameType | None) -> None:
        asked.append(number)

    before = {one: signal.signal(one, ask) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _orphaned(launcher: int) -> bool:
    """Whether torchrun was killed: whoever starts the run again must find no one writing it."""
    return "RANK" in os.environ and os.getppid() != launcher


def _agreed(told: bool, group: Group) -> bool:
    """Whether any rank was told to stop: all of them stop at one step."""
    count = torch.tensor([int(told)], device=group.device)
    dist.all_reduce(count)
    return bool(count.item())
