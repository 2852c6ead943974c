"""How fast a run is against what its device could do."""

import resource
from dataclasses import dataclass
from typing import Any

import torch

PEAK_TFLOPS = {
    "GB200": 2450.0,
    "B200": 2250.0,
    "H200": 989.0,
    "H100 NVL": 835.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "RTX 4090": 165.0,
}
"""Dense bfloat16 with float32 sums, from the makers' data sheets, by what a device's name has in
it; the first that fits."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What one step took, on all processes together."""

    seconds: float
    """Wall-clock, waiting for data included."""
    waited: float
    stalled: float
    """Waiting for checkpoints, before this step."""
    real: int
    """Seats that are no repeats."""
    operations: int
    """Of one seat, forward and backward, nothing computed twice."""
    tokens: int
    """Of one seat."""


def line(pace: Pace, world: int, device: torch.device, peak: float | None) -> dict[str, Any]:
    """Its metrics; `mfu` is null where the device's peak is not known."""
    rate = pace.real / pace.seconds
    achieved = rate * pace.operations / world / 1e12
    return {
        "seconds": pace.seconds,
        "samples_per_second": rate,
        "tokens_per_second": rate * pace.tokens,
        "tflops_per_device": achieved,
        "mfu": None if peak is None else achieved / peak,
        "data_wait_share": pace.waited / pace.seconds,
        "checkpoint_stall_share": pace.stalled / (pace.seconds + pace.stalled),
        "memory_gib": memory_gib(device),
    }


def peak_tflops(device: torch.device, precision: str, given: float | None) -> float | None:
    """What is given, or what is known of the device; nothing is known in float32."""
    if given is not None or device.type != "cuda" or precision != "bfloat16":
        return given
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_TFLOPS.items() if part in name), None)


def memory_gib(device: torch.device) -> float:
    """The most so far: allocated on the GPU, or of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
