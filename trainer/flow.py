"""Flow matching (arXiv 2512.02457): noising, target, loss, and sampling with guidance.

x_t = (1 - t) x_0 + t eps and the target is eps - x_0, for each modality; one t is shared by both.
All randomness is the caller's, so that it can be keyed by sample and not by process.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from jaxtyping import Float
from torch import Tensor

from avdata.trainer.model.modality import Conditioned, Velocity

TimeDensity = Literal["uniform", "logit_normal"]
Model = Callable[[Conditioned, Conditioned | None, Tensor], Velocity]


@dataclass(frozen=True, slots=True)
class Clean:
    """One modality of a batch, or of one sample, before noise."""

    latents: Tensor
    """x_0."""
    noise: Tensor
    """eps, shaped as the latents."""
    text: Tensor
    """(... n d)"""
    text_mask: Tensor
    """(... n), True for real tokens."""


@dataclass(frozen=True, slots=True)
class Losses:
    """Sums of the samples' errors by their shares; `total` has the modalities' weights."""

    total: Float[Tensor, ""]
    video: Float[Tensor, ""]
    audio: Float[Tensor, ""] | None


def times(
    u: Float[Tensor, " b"], density: TimeDensity = "logit_normal", shift: float = 1.0
) -> Float[Tensor, " b"]:
    """Times from uniform numbers in (0, 1); `shift` > 1 moves them towards noise."""
    t = u
    if density == "logit_normal":
        t = torch.sigmoid(torch.special.ndtri(u.double().clamp(1e-9, 1 - 1e-9))).type_as(u)
    return shift * t / (1 + (shift - 1) * t)


def flow_loss(
    model: Model,
    video: Clean,
    audio: Clean | None,
    t: Float[Tensor, " b"],
    share: Float[Tensor, " b"],
    lambdas: tuple[float, float] = (1.0, 1.0),
) -> Losses:
    """Squared error of the velocities, a mean over each sample, summed by share.

    The shares of a whole batch sum to 1, wherever its parts are computed; a share of 0 counts for
    nothing. `lambdas` are those of video and audio.
    """
    velocity = model(_noised(video, t), _noised(audio, t) if audio else None, t)
    seen = _error(velocity.video, video, share)
    if audio is None or velocity.audio is None:
        return Losses(lambdas[0] * seen, seen, None)
    heard = _error(velocity.audio, audio, share)
    return Losses(lambdas[0] * seen + lambdas[1] * heard, seen, heard)


@dataclass(frozen=True, slots=True)
class SamplerConfig:
    """How to sample (arXiv 2512.02457: 50 steps, guidance 5.0 and 4.5)."""

    steps: int = 50
    shift: float = 1.0
    guidance_video: float = 5.0
    guidance_audio: float = 4.5

    def __post_init__(self) -> None:
        for name in ("steps", "shift"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")


@torch.inference_mode()
def sample(
    model: Model, video: Conditioned, audio: Conditioned | None, config: SamplerConfig
) -> Velocity:
    """Clean latents by Euler steps from the noise that the conditions hold as latents.

    The negative branch has no caption in either modality: zeros, and nothing unmasked.
    """
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=config.shift)
    sigmas = torch.linspace(1, 1 / config.steps, config.steps).tolist()
    scheduler.set_timesteps(sigmas=sigmas)
    x, y = video.latents, audio.latents if audio else None
    for low, high in zip(scheduler.sigmas[1:], scheduler.sigmas[:-1], strict=True):
        t = torch.full((len(x),), float(high), device=x.device)
        step = low.item() - high.item()
        now_video = _with_latents(video, x)
        now_audio = _with_latents(audio, y) if audio is not None and y is not None else None
        velocity = _guided(model, now_video, now_audio, t, config)
        x = x + step * velocity.video
        y = y + step * velocity.audio if y is not None and velocity.audio is not None else None
    return Velocity(x, y)


def _guided(
    model: Model,
    video: Conditioned,
    audio: Conditioned | None,
    t: Float[Tensor, " b"],
    config: SamplerConfig,
) -> Velocity:
    positive = model(video, audio, t)
    negative = model(_uncaptioned(video), _uncaptioned(audio) if audio else None, t)
    seen = negative.video + config.guidance_video * (positive.video - negative.video)
    if positive.audio is None or negative.audio is None:
        return Velocity(seen, None)
    heard = negative.audio + config.guidance_audio * (positive.audio - negative.audio)
    return Velocity(seen, heard)


def _noised(clean: Clean, t: Float[Tensor, " b"]) -> Conditioned:
    at = t.view(-1, *[1] * (clean.latents.ndim - 1))
    x_t = (1 - at) * clean.latents + at * clean.noise
    return Conditioned(x_t, clean.text, clean.text_mask)


def _error(velocity: Tensor, clean: Clean, share: Float[Tensor, " b"]) -> Float[Tensor, ""]:
    error = (velocity.float() - (clean.noise - clean.latents).float()).square()
    return (error.flatten(1).mean(1) * share).sum()


def _with_latents(condition: Conditioned, latents: Tensor) -> Conditioned:
    return Conditioned(latents, condition.text, condition.text_mask)


def _uncaptioned(condition: Conditioned) -> Conditioned:
    text, mask = torch.zeros_like(condition.text), torch.zeros_like(condition.text_mask)
    return Conditioned(condition.latents, text, mask)
