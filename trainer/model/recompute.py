"""Activation checkpointing: what a layer computed is forgotten and computed again for its gradient.

Memory for activations then grows with one layer instead of all; a step costs one more forward pass.
Gradients are the same to the bit on one device.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch.utils.checkpoint import checkpoint

Out = TypeVar("Out")


def forgetting(on: bool, layer: Callable[[], Out]) -> Out:
    """Calls `layer`. Where `on`, it is called again in the backward pass, so what it closes over
    must not change in between.
    """
    if not on or not torch.is_grad_enabled():
        return layer()
    out: Out = checkpoint(layer, use_reentrant=False)
    return out
