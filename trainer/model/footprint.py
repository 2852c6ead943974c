"""What a training step keeps in memory for its backward pass, counted without numbers."""

from typing import Any

import torch
from torch import Tensor

from avdata.encoders.spec import Specs
from avdata.trainer.model.avfulldit import AVFullDiT
from avdata.trainer.model.cost import conditions


def saved_bytes(
    model: AVFullDiT, specs: Specs, shape: tuple[int, ...], length: int, batch: int
) -> int:
    """In float32, each storage once, weights not counted; `model` is on the meta device."""
    weights = {one.untyped_storage()._cdata for one in model.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            # Held, so that no other takes its place in memory and its number.
            kept[storage._cdata] = storage
        return tensor

    with (
        torch.device("meta"),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        video, audio = conditions(model, specs, shape, length, batch)
        model(video, audio, torch.empty(batch))
    return sum(storage.nbytes() for storage in kept.values())
