"""What goes into the model and what comes out, as typed bundles."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Conditioned:
    """One modality's noisy latents with its own caption."""

    latents: Float[Tensor, "b c t h w"] | Float[Tensor, "b c l"]
    """x_t of video or of audio."""
    text: Float[Tensor, "b n d"]
    """Padded with zeros to a fixed n."""
    text_mask: Bool[Tensor, "b n"]
    """True for real tokens."""


@dataclass(frozen=True, slots=True)
class Velocity:
    """Predicted velocities, shaped as the latents."""

    video: Float[Tensor, "b c t h w"]
    audio: Float[Tensor, "b k l"] | None


@dataclass(frozen=True, slots=True)
class Advanced:
    """The three streams after a pair of layers."""

    video: Float[Tensor, "b n c"]
    audio_text: Float[Tensor, "b m k"]
    """Caption and duration."""
    audio: Float[Tensor, "b l k"]


def each_time(t: Float[Tensor, "b *two"]) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Times of video and audio: one (b,) for both, or (b, 2)."""
    return (t, t) if t.ndim == 1 else (t[:, 0], t[:, 1])


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """For what embeds times: modulation is too fine for bfloat16, as Wan's own training has it."""
    if device.type == "meta":  # Which knows no autocast.
        return nullcontext()
    off: AbstractContextManager[None] = torch.autocast(device.type, enabled=False)
    return off
