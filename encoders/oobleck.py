"""The audio VAE of Stable Audio (Oobleck), by diffusers' `AutoencoderOobleck`.

64 channels at 44.1 kHz stereo, a hop of 2048 samples, 156.1 M parameters; all numbers are those of
the checkpoint's config. Latents are the posterior's mean as it is: the model was trained towards
unit variance and has no scale factor. Licence of the weights: Stability AI Community License,
which is not free for everyone and every use; read it before you train on what they give.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import xxhash
from jaxtyping import Float
from torch import Tensor

from avdata.encoders import vae
from avdata.encoders.spec import AudioSpec
from avdata.encoders.vae import Vae
from avdata.encoders.weights import Release, Weights
from avdata.errors import UsageError

VERSION = 1
RELEASE = Release(
    name="Oobleck VAE",
    size="0.6 GB (accept its licence on the hub first, then `hf auth login`)",
    repository="stabilityai/stable-audio-open-1.0",
    folders=("vae",),
)


@dataclass(frozen=True, slots=True)
class OobleckAudio(Weights):
    """Configuration."""

    sample_seed: int | None = None
    """Latents are drawn from the posterior instead of being its mean. A clip's noise depends on
    this seed and on its own samples alone.
    """
    kind: Literal["oobleck"] = "oobleck"

    def __post_init__(self) -> None:
        if self.sample_seed is not None and not 0 <= self.sample_seed < 2**64:
            raise ValueError(f"sample_seed must be in [0, 2^64), not {self.sample_seed}")

    def spec(self) -> AudioSpec:
        """What it is, from its files; UsageError when they are missing or no stereo Oobleck."""
        return _spec(self, _read(self))

    def open(self, device: torch.device) -> "OpenOobleck":
        """Loads it; UsageError as `spec`, and when weights are damaged or another model's."""
        return OpenOobleck(self, device)


class OpenOobleck:
    """An `AudioEncoder`."""

    def __init__(self, config: OobleckAudio, device: torch.device) -> None:
        found = _read(config)
        self._spec = _spec(config, found)
        self._sample_seed = config.sample_seed
        self._model = vae.load(found, config, device)

    @property
    def spec(self) -> AudioSpec:
        """Of the checkpoint."""
        return self._spec

    @torch.no_grad()
    def encode(self, samples: Float[Tensor, "b 2 m"]) -> Float[Tensor, "b c l"]:
        """See `AudioEncoder.encode`; float32. ValueError when there is less than one hop."""
        length, hop = self._spec.latent_length(samples.shape[-1]), self._spec.hop
        if length == 0:
            raise ValueError(
                f"{self._spec.name}: {samples.shape[-1]} samples are less than a hop of {hop}"
            )
        whole = samples[..., : length * hop].float()
        posterior = self._model.encode(whole.to(self._model.device, self._model.dtype)).latent_dist
        latents: Tensor = posterior.mean.float()
        if self._sample_seed is not None:
            noise = torch.stack([_noise(self._sample_seed, one, latents[0].shape) for one in whole])
            latents = latents + posterior.std.float() * noise.to(latents)
        return latents

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b c l"]) -> Float[Tensor, "b 2 m"]:
        """See `AudioEncoder.decode`; float32."""
        values = latents.to(self._model.device, self._model.dtype)
        samples: Tensor = self._model.decode(values).sample.float()
        return samples.clamp(-1, 1)


def _noise(
    seed: int, samples: Float[Tensor, "2 m"], shape: tuple[int, ...]
) -> Float[Tensor, "c l"]:
    """Drawn on the CPU: the same on every machine."""
    own = xxhash.xxh3_64_intdigest(samples.cpu().contiguous().numpy().tobytes(), seed=seed)
    return torch.randn(shape, generator=torch.Generator().manual_seed(own))


def _read(config: OobleckAudio) -> Vae:
    return vae.read(config, RELEASE, "AutoencoderOobleck", [VERSION, config.sample_seed])


def _spec(config: OobleckAudio, found: Vae) -> AudioSpec:
    if found.config["audio_channels"] != 2:
        have = found.config["audio_channels"]
        raise UsageError(f"{found.folder}: audio_channels is {have}; give a stereo model")
    return AudioSpec(
        name=config.kind,
        digest=found.digest,
        channels=found.config["decoder_input_channels"],
        hop=math.prod(found.config["downsampling_ratios"]),
        sample_rate=found.config["sampling_rate"],
        audio_channels=found.config["audio_channels"],
    )
