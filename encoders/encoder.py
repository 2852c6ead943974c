"""The three encoder protocols; letters as in `spec`.

An encoder is a frozen configuration. Its `spec()` says what it is without loading it; its
`open(device)` loads once and returns an object that has one of these shapes. The arithmetic's dtype
is a setting of those that have weights, for it is part of what their latents are; latents and
embeddings come back as float32. Latents are normalised: about zero mean and unit variance.
"""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, UInt8
from torch import Tensor

from avdata.encoders.spec import AudioSpec, TextSpec, VideoSpec


@runtime_checkable
class VideoEncoder(Protocol):
    """Frames to latents and back."""

    @property
    def spec(self) -> VideoSpec:
        """What it is."""

    def encode(self, frames: UInt8[Tensor, "b n h w 3"]) -> Float[Tensor, "b c t lh lw"]:
        """Normalised latents; ValueError unless n = 4k+1 and the strides divide h and w."""

    def decode(self, latents: Float[Tensor, "b c t lh lw"]) -> UInt8[Tensor, "b n h w 3"]:
        """Frames from normalised latents."""


@runtime_checkable
class AudioEncoder(Protocol):
    """Samples to latents and back."""

    @property
    def spec(self) -> AudioSpec:
        """What it is."""

    def encode(self, samples: Float[Tensor, "b 2 m"]) -> Float[Tensor, "b c l"]:
        """Normalised latents of samples in [-1, 1]; a tail shorter than a hop is left out."""

    def decode(self, latents: Float[Tensor, "b c l"]) -> Float[Tensor, "b 2 m"]:
        """Samples in [-1, 1] from normalised latents."""


@runtime_checkable
class TextEncoder(Protocol):
    """Captions to token embeddings, unpadded."""

    @property
    def spec(self) -> TextSpec:
        """What it is."""

    def encode(self, captions: list[str]) -> list[Float[Tensor, "_ width"]]:
        """One tensor a caption, at least one token each, at most `spec.max_tokens`."""
