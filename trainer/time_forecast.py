"""How long a step of a run will take: timed here, or from a device's peak."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from avdata.encoders.device import usable
from avdata.trainer.batch import Batch
from avdata.trainer.config import TrainConfig
from avdata.trainer.denoise import computing
from avdata.trainer.flow import flow_loss
from avdata.trainer.loader import Loader
from avdata.trainer.model.avfulldit import AVFullDiT
from avdata.trainer.model.cost import Cost
from avdata.trainer.parallel import threads_of_each

ASSUMED_MFU = 0.35
"""Where a device's peak is given and its pace cannot be measured here."""
SHARE_OF_MEMORY = 0.5
"""The most that the state of a model may take for it to be timed here."""


def seconds_a_step(
    loader: Loader,
    config: TrainConfig,
    costs: dict[str, Cost],
    work: float,
    needed_gib: float,
) -> tuple[float | None, str]:
    """And how they were found; None where neither way is open.

    `work` are the operations of a process in a mean step, `needed_gib` its memory.
    """
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


@contextmanager
def beside_others(processes: int) -> Iterator[None]:
    """With the threads that one of so many processes of training has, unless the user says how
    many.
    """
    before = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads_of_each(processes))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _free_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 2**30
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
