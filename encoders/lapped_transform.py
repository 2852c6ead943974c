"""The default audio encoder: a truncated orthonormal lapped transform, no weights.

It has the geometry of the Oobleck VAE (64 channels at a hop of 2048, stereo) and decodes to a
dull but recognisable sound. A hop is four blocks of 512 samples, each with 14 mid and 2 side
coefficients: everything below 600 Hz, and times of onsets to about 12 ms. One block of 2048 would
keep the same band with four times coarser times, and times are what matters here. Coefficients are
companded, as loudness is: sound is loud or faint by factors of a thousand, latents must not be.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from avdata import storage
from avdata.encoders.spec import AudioSpec

VERSION = 2
BLOCK, BLOCKS, MID, SIDE = 512, 4, 14, 2
SCALE = 1.2
"""Standard deviation of the lowest coefficient in ordinary sound; they fall off as 1/(1+k/6)."""
KNEE, GAIN = 0.25, 0.65
"""Latent = GAIN asinh(x / KNEE): linear for faint coefficients, logarithmic for loud ones. Natural
clips then have about unit variance, faint and loud ones within a factor of a few.
"""


@dataclass(frozen=True, slots=True)
class LappedTransform:
    """Configuration; it has no settings."""

    kind: Literal["lapped-transform"] = "lapped-transform"

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def spec(self) -> AudioSpec:
        """64 channels, hop 2048, 44.1 kHz stereo."""
        settings = [VERSION, BLOCK, BLOCKS, MID, SIDE, SCALE, KNEE, GAIN]
        return AudioSpec(name=self.kind, digest=storage.digest_json(settings))

    def open(self, device: torch.device) -> "OpenLappedTransform":
        """Builds the basis on a device."""
        return OpenLappedTransform(self.spec(), device)


class OpenLappedTransform:
    """An `AudioEncoder`."""

    def __init__(self, spec: AudioSpec, device: torch.device) -> None:
        self._spec = spec
        k, n = np.mgrid[:MID, :BLOCK]
        basis = np.sqrt(2 / BLOCK) * np.cos(np.pi / BLOCK * (n + 0.5) * (k + 0.5))
        self._basis = torch.from_numpy(basis).float().to(device)
        # From an equal mixture at the border to none half a block away.
        distance = (np.arange(BLOCK // 2) + 0.5) / (BLOCK // 2)
        angle = torch.from_numpy(np.pi / 4 * (1 - distance)).float().to(device)
        self._cos, self._sin = angle.cos(), angle.sin()
        falling = SCALE / (1 + torch.arange(MID, device=device) / 6)
        self._scale = torch.cat([falling, 0.2 * falling[:SIDE]])

    @property
    def spec(self) -> AudioSpec:
        """64 channels, hop 2048, 44.1 kHz stereo."""
        return self._spec

    def encode(self, samples: Float[Tensor, "b 2 m"]) -> Float[Tensor, "b c l"]:
        """See `AudioEncoder.encode`."""
        length = self.spec.latent_length(samples.shape[-1])
        whole = samples[..., : length * self.spec.hop].to(self._basis)
        left, right = whole.unbind(1)
        both = torch.stack([left + right, left - right], dim=1) / 2**0.5
        blocks = self._fold(rearrange(both, "b s (i n) -> b s i n", n=BLOCK), self._sin)
        values = blocks @ self._basis.T
        kept = torch.cat([values[:, 0], values[:, 1, :, :SIDE]], dim=-1) / self._scale
        kept = GAIN * torch.asinh(kept / KNEE)
        return rearrange(kept, "b (l u) k -> b (u k) l", u=BLOCKS)

    def decode(self, latents: Float[Tensor, "b c l"]) -> Float[Tensor, "b 2 m"]:
        """See `AudioEncoder.decode`."""
        kept = rearrange(latents.to(self._basis), "b (u k) l -> b (l u) k", u=BLOCKS)
        # Far beyond full scale: a sampler's runaway must not become infinite.
        kept = KNEE * torch.sinh((kept / GAIN).clamp(-12, 12)) * self._scale
        mid = kept[..., :MID] @ self._basis
        side = kept[..., MID:] @ self._basis[:SIDE]
        blocks = self._fold(torch.stack([mid, side], dim=1), -self._sin)
        middle, apart = rearrange(blocks, "b s i n -> b s (i n)").unbind(1)
        return (torch.stack([middle + apart, middle - apart], dim=1) / 2**0.5).clamp(-1, 1)

    def _fold(
        self, blocks: Float[Tensor, "b s i n"], sine: Float[Tensor, " half"]
    ) -> Float[Tensor, "b s i n"]:
        """Rotates the samples that mirror each other at every inner border (time-domain aliasing,
        Princen and Bradley 1986); the opposite sine undoes it. The outer ends are left alone, so l
        latents are l hops exactly.
        """
        half = BLOCK // 2
        before = blocks[:, :, :-1, half:].flip(-1)
        after = blocks[:, :, 1:, :half]
        out = blocks.clone()
        out[:, :, :-1, half:] = (self._cos * before - sine * after).flip(-1)
        out[:, :, 1:, :half] = self._cos * after + sine * before
        return out
