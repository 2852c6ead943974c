"""Random numbers keyed by what they are for, never by the process that draws them.

One seat of one epoch gets the same time, the same dropout and the same noise with any number of
ranks, after any resume, and in both modes: the twin sees exactly the joint model's video noise.
"""

import numpy as np
import torch
from jaxtyping import Float32
from numpy import ndarray
from torch import Tensor

TIME, VIDEO, AUDIO, SAMPLE_VIDEO, SAMPLE_AUDIO = 1, 2, 3, 4, 5
"""Streams: numbers drawn from one never shift those of another."""


def generator(stream: int, *key: int) -> np.random.Generator:
    """A counter-based generator for one purpose."""
    # The length, too: SeedSequence takes [1] and [1, 0] for the same.
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([stream, len(key), *key])))


def noise(stream: int, shape: tuple[int, ...], *key: int) -> Tensor:
    """Standard normal, float32."""
    drawn = np.empty(shape, np.float32)
    noise_into(drawn, stream, *key)
    return torch.from_numpy(drawn)


def noise_into(out: Float32[ndarray, "..."], stream: int, *key: int) -> None:
    """Fills an array with it."""
    generator(stream, *key).standard_normal(dtype=np.float32, out=out)
