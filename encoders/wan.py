"""The video VAE of Wan (Wan2.2 and Wan2.1), by diffusers' `AutoencoderKLWan`.

Wan2.2: 48 channels, 4 x 16 x 16, 704.7 M parameters; Wan2.1: 16 channels, 4 x 8 x 8. All numbers
are those of the checkpoint's config. Latents are the posterior's mean, normalised per channel by
`latents_mean` and `latents_std` of the config, as Wan itself does (the library leaves it to its
caller). Licence of the weights: Apache-2.0.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from avdata.encoders import vae
from avdata.encoders.spec import VideoSpec
from avdata.encoders.vae import Vae
from avdata.encoders.weights import Release, Weights

VERSION = 1
RELEASE = Release(
    name="Wan2.2 VAE",
    size="2.8 GB",
    repository="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
    folders=("vae",),
)


@dataclass(frozen=True, slots=True)
class WanVideo(Weights):
    """Configuration."""

    tiled: bool = False
    """In overlapping tiles of the library's own size, for pictures that do not fit into memory
    whole. The latents then differ a little.
    """
    kind: Literal["wan"] = "wan"

    def spec(self) -> VideoSpec:
        """What it is, from its files; UsageError when they are missing or not a Wan VAE."""
        return _spec(self, _read(self))

    def open(self, device: torch.device) -> "OpenWan":
        """Loads it; UsageError as `spec`, and when weights are damaged or another model's."""
        return OpenWan(self, device)


class OpenWan:
    """A `VideoEncoder`."""

    def __init__(self, config: WanVideo, device: torch.device) -> None:
        found = _read(config)
        self._spec = _spec(config, found)
        self._model = vae.load(found, config, device)
        if config.tiled:
            self._model.enable_tiling()
        self._mean = torch.tensor(found.config["latents_mean"], device=device)
        self._std = torch.tensor(found.config["latents_std"], device=device)

    @property
    def spec(self) -> VideoSpec:
        """Of the checkpoint."""
        return self._spec

    @torch.no_grad()
    def encode(self, frames: UInt8[Tensor, "b n h w 3"]) -> Float[Tensor, "b c t lh lw"]:
        """See `VideoEncoder.encode`; float32."""
        self._spec.latent_shape(*frames.shape[1:4])
        pixels = rearrange(frames.to(self._model.device), "b n h w c -> b c n h w") / 127.5 - 1
        posterior = self._model.encode(pixels.to(self._model.dtype)).latent_dist
        mean: Tensor = posterior.mode().float()
        return (mean - _channel(self._mean)) / _channel(self._std)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b c t lh lw"]) -> UInt8[Tensor, "b n h w 3"]:
        """See `VideoEncoder.decode`."""
        values = latents.to(self._mean) * _channel(self._std) + _channel(self._mean)
        pixels: Tensor = self._model.decode(values.to(self._model.dtype)).sample.float()
        levels = ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return rearrange(levels, "b c n h w -> b n h w c")


def _channel(values: Float[Tensor, " c"]) -> Float[Tensor, "c 1 1 1"]:
    return values[:, None, None, None]


def _read(config: WanVideo) -> Vae:
    return vae.read(config, RELEASE, "AutoencoderKLWan", [VERSION, config.tiled])


def _spec(config: WanVideo, found: Vae) -> VideoSpec:
    return VideoSpec(
        name=config.kind,
        digest=found.digest,
        channels=found.config["z_dim"],
        stride_time=found.config["scale_factor_temporal"],
        stride_height=found.config["scale_factor_spatial"],
        stride_width=found.config["scale_factor_spatial"],
    )
