"""What goes into the model and what comes out, as typed bundles."""

from dataclasses import dataclass

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
