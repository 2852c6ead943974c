"""Where tensors are computed."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from avdata.errors import RunError, UsageError


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


@contextmanager
def within_memory(way: str) -> Iterator[None]:
    """RunError with the `way` out where the device has too little memory for what is done here."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        said = " ".join(str(error).split())[:200]
        raise RunError(f"the GPU has too little memory ({said}); {way}") from error
