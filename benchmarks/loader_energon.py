"""Energon over our shards, as `benchmarks/loader_peers.py` reads them.

A file of its own: its workers hand their batches over by name, so the classes must have one.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from megatron import energon


@energon.edataclass
class Latents(energon.Sample):
    """One sample, or a batch of them."""

    video: torch.Tensor
    audio: torch.Tensor


@energon.stateless
def cook(raw: dict[str, Any]) -> Latents:
    """From what the tar holds."""
    arrays = {role: torch.as_tensor(raw[f"{role}.npy"]) for role in ("video", "audio")}
    return Latents(**energon.basic_sample_keys(raw), **arrays)


class Task(energon.DefaultTaskEncoder):
    """Batches by its own rules."""

    cookers = (energon.Cooker(cook),)


def batches(shards: Path, batch_size: int, workers: int) -> Iterator[dict[str, Any]]:
    """Without end."""
    dataset = energon.get_train_dataset(
        shards,
        worker_config=energon.WorkerConfig(rank=0, world_size=1, num_workers=workers),
        batch_size=batch_size,
        shuffle_buffer_size=4 * batch_size,
        max_samples_per_sequence=100,
        task_encoder=Task(),
    )
    for batch in energon.get_loader(dataset):
        yield {"video": batch.video, "audio": batch.audio}
