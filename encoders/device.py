"""Where tensors are computed."""

from contextlib import suppress

import torch

from avdata.errors import UsageError


def kind(name: str) -> str:
    """cpu, cuda or auto, whether it is there or not; UsageError for any other."""
    if name == "auto":
        return name
    with suppress(RuntimeError):
        found = torch.device(name).type
        if found in ("cpu", "cuda"):
            return found
    raise UsageError(f"device = {name}: give cpu, cuda or auto")


def usable(name: str) -> torch.device:
    """The device of this name, `auto` for CUDA where there is one; UsageError where it is not."""
    if kind(name) == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device = {name}: torch sees no CUDA device on this machine")
    return device
