"""The encoders that a run has when none are chosen."""

import torch

from avdata.encoders.choice import Encoders, EncodersConfig

__all__ = ["Encoders", "open_defaults"]


def open_defaults(device: torch.device) -> Encoders:
    """The embedded ones, which need no weights."""
    return EncodersConfig().open(device)
