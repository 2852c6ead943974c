"""Where tensors are computed."""

import torch

from avdata.errors import UsageError


def usable(name: str) -> torch.device:
    """The device of this name, `auto` for CUDA where there is one; UsageError where it is not."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"device = {name}: give cpu, cuda or auto") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device = {name}: torch sees no CUDA device on this machine")
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device = {name}: give cpu, cuda or auto")
    return device
