"""The default video encoder: a truncated orthonormal space-time block transform, no weights.

It has the geometry of the Wan2.2 VAE (48 channels, strides 4 x 16 x 16, the first latent frame
holds one frame, later ones four) and decodes to a recognisable picture, so the whole chain runs
and can be looked at without a download. Each block of 4 x 16 x 16 pixels is turned into opponent
colours and a 3-D cosine transform; the coefficients that hold most energy in natural video stay.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from avdata import storage
from avdata.encoders.spec import VideoSpec

VERSION = 1
CHANNELS, TIME, SPACE = 48, 4, 16
LUMA_MEAN = -5.1
"""Mean of the brightest-to-darkest coefficient: natural video is darker than mid-grey."""

# (colour, temporal frequency) -> standard deviation by spatial frequency row + column, per frame,
# with pixels in -1..1; what is not listed is not kept, nor is the last of those that are, for there
# are 48 channels. Fitted to natural clips at 96x160 and 192x320 (benchmarks/roundtrip.py shows what
# is lost).
SCALES: dict[tuple[int, int], tuple[float, ...]] = {
    (0, 0): (12.8, 2.8, 1.45, 0.9, 0.68, 0.5, 0.42),
    (1, 0): (3.1, 0.7, 0.38),
    (2, 0): (1.55, 0.4),
    (0, 1): (1.45, 0.62, 0.42),
    (0, 2): (0.6, 0.37),
    (0, 3): (0.53, 0.3),
}


@dataclass(frozen=True, slots=True)
class BlockTransform:
    """Configuration; it has no settings."""

    kind: Literal["block-transform"] = "block-transform"

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def spec(self) -> VideoSpec:
        """48 x 4 x 16 x 16."""
        settings = [VERSION, LUMA_MEAN, [[list(key), value] for key, value in SCALES.items()]]
        return VideoSpec(name=self.kind, digest=storage.digest_json(settings))

    def open(self, device: torch.device) -> "OpenBlockTransform":
        """Builds the bases on a device."""
        return OpenBlockTransform(self.spec(), device)


class OpenBlockTransform:
    """A `VideoEncoder`."""

    def __init__(self, spec: VideoSpec, device: torch.device) -> None:
        self._spec = spec
        kept = _kept()
        colour = (
            torch.tensor([[1, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.float64)
            / torch.tensor([[3.0], [2.0], [6.0]], dtype=torch.float64).sqrt()
        )
        space, time = _cosines(SPACE), _cosines(TIME)
        plane = torch.stack(
            [torch.einsum("h,w,c->hwc", space[r], space[s], colour[k]) for k, _, r, s, _ in kept]
        )
        course = torch.stack([time[t] for _, t, _, _, _ in kept])
        # Frame 0 stands for a course of one frame: it has no temporal detail.
        still = torch.tensor([float(t == 0) for _, t, _, _, _ in kept])
        self._plane = plane.float().to(device)
        # Divided by sqrt(4), so that a still picture has the same latents in every frame.
        self._course = (course / TIME**0.5).float().to(device)
        self._still = still.to(device)
        self._scale = torch.tensor([row[4] for row in kept], device=device)
        self._mean = torch.tensor(
            [LUMA_MEAN if row[:4] == (0, 0, 0, 0) else 0.0 for row in kept], device=device
        )

    @property
    def spec(self) -> VideoSpec:
        """48 x 4 x 16 x 16."""
        return self._spec

    def encode(self, frames: UInt8[Tensor, "b n h w 3"]) -> Float[Tensor, "b c t lh lw"]:
        """See `VideoEncoder.encode`."""
        self.spec.latent_shape(*frames.shape[1:4])
        # Each alone: sums of several clips would be added up in another order.
        return torch.cat([self._encode(one) for one in frames.split(1)])

    def _encode(self, frames: UInt8[Tensor, "b n h w 3"]) -> Float[Tensor, "b c t lh lw"]:
        pixels = frames.to(self._plane) / 127.5 - 1
        blocks = rearrange(pixels, "b n (lh p) (lw q) c -> b n lh lw p q c", p=SPACE, q=SPACE)
        planes = torch.einsum("bnhwpqc,kpqc->bknhw", blocks, self._plane)
        first = planes[:, :, :1] * self._still[:, None, None, None]
        groups = rearrange(planes[:, :, 1:], "b k (t u) h w -> b k t u h w", u=TIME)
        later = torch.einsum("bktuhw,ku->bkthw", groups, self._course)
        latents = torch.cat([first, later], dim=2)
        return (latents - _channel(self._mean)) / _channel(self._scale)

    def decode(self, latents: Float[Tensor, "b c t lh lw"]) -> UInt8[Tensor, "b n h w 3"]:
        """See `VideoEncoder.decode`."""
        values = latents.to(self._plane) * _channel(self._scale) + _channel(self._mean)
        first = values[:, :, :1] * self._still[:, None, None, None]
        later = torch.einsum("bkthw,ku->bktuhw", values[:, :, 1:], self._course * TIME)
        planes = torch.cat([first, rearrange(later, "b k t u h w -> b k (t u) h w")], dim=2)
        blocks = torch.einsum("bknhw,kpqc->bnhwpqc", planes, self._plane)
        pixels = rearrange(blocks, "b n lh lw p q c -> b n (lh p) (lw q) c")
        return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def _channel(values: Float[Tensor, " c"]) -> Float[Tensor, "c 1 1 1"]:
    return values[:, None, None, None]


def _kept() -> list[tuple[int, int, int, int, float]]:
    """(colour, time, row, column, scale) of each channel, the most energetic first."""
    rows = [
        (colour, time, row, total - row, scale)
        for (colour, time), scales in SCALES.items()
        for total, scale in enumerate(scales)
        for row in range(total + 1)
    ]
    return sorted(rows, key=lambda kept: (-kept[4], kept))[:CHANNELS]


def _cosines(size: int) -> Float[Tensor, "k n"]:
    """The orthonormal DCT-II as rows (Ahmed, Natarajan, Rao 1974)."""
    k, n = np.mgrid[:size, :size]
    basis = np.sqrt(2 / size) * np.cos(np.pi / size * (n + 0.5) * k)
    basis[0] /= np.sqrt(2)
    return torch.from_numpy(basis)
