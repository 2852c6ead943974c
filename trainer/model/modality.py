"""What goes into the model and what comes out, as typed bundles."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Conditioned:
    """One modality's noisy latents with its own caption."""

    latents: Tensor
    """x_t: video (b c t h w) or audio (b c l)."""
    text: Tensor
    """(b n d), padded with zeros to a fixed n."""
    text_mask: Tensor
    """(b n), True for real tokens."""


@dataclass(frozen=True, slots=True)
class Velocity:
    """Predicted velocities, shaped as the latents."""

    video: Tensor
    audio: Tensor | None


@dataclass(frozen=True, slots=True)
class Advanced:
    """The three streams after a pair of layers, (b n c) each."""

    video: Tensor
    audio_text: Tensor
    """Caption and duration."""
    audio: Tensor


def each_time(t: Float[Tensor, "b *two"]) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Times of video and audio: one (b,) for both, or (b, 2)."""
    return (t, t) if t.ndim == 1 else (t[:, 0], t[:, 1])


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """For what embeds times: modulation is too fine for bfloat16, as Wan's own training has it."""
    if device.type == "meta":  # Which knows no autocast.
        return nullcontext()
    off: AbstractContextManager[None] = torch.autocast(device.type, enabled=False)
    return off
