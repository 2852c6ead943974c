"""Flow matching (arXiv 2512.02457): noising, target, loss, and sampling with guidance.

x_t = (1 - t) x_0 + t eps and the target is eps - x_0, for each modality; one t is shared by both
unless each is given its own.
All randomness is the caller's, so that it can be keyed by sample and not by process.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from jaxtyping import Bool, Float
from torch import Tensor

from avdata.trainer.model.modality import Conditioned, Velocity, each_time

TimeDensity = Literal["uniform", "logit_normal"]
Solver = Any
"""A scheduler of diffusers, whose types are not those it takes."""
Model = Callable[[Conditioned, Conditioned | None, Tensor], Velocity]


@dataclass(frozen=True, slots=True)
class Clean:
    """One modality of a batch, or of one sample, before noise."""

    latents: Float[Tensor, "*shape"]
    """x_0."""
    noise: Float[Tensor, "*shape"]
    """eps."""
    text: Float[Tensor, "*b n d"]
    text_mask: Bool[Tensor, "*b n"]
    """True for real tokens."""


@dataclass(frozen=True, slots=True)
class Losses:
    """Sums of the samples' errors by their shares; `total` has the modalities' weights."""

    total: Float[Tensor, ""]
    video: Float[Tensor, ""]
    audio: Float[Tensor, ""] | None
    errors: tuple[Float[Tensor, " b"], Float[Tensor, " b"] | None]
    """Of each sample, video and audio."""


def times(
    u: Float[Tensor, "b *two"], density: TimeDensity = "logit_normal", shift: float = 1.0
) -> Float[Tensor, "b *two"]:
    """Times from uniform numbers in (0, 1); `shift` > 1 moves them towards noise."""
    t = u
    if density == "logit_normal":
        t = torch.sigmoid(torch.special.ndtri(u.double().clamp(1e-9, 1 - 1e-9))).type_as(u)
    return shift * t / (1 + (shift - 1) * t)


def own_times(u: Float[Tensor, " b"]) -> Float[Tensor, "b 2"]:
    """Two uniform numbers from one: video's is `u` itself, audio's are its lower digits.

    They are independent to 1 part in 4096, and video gets the time that it has where one is shared.
    """
    lower = (u.double() * 4096) % 1
    return torch.stack([u, lower.clamp(1e-4, 1 - 1e-4).type_as(u)], dim=1)


def flow_loss(
    model: Model,
    video: Clean,
    audio: Clean | None,
    t: Float[Tensor, "b *two"],
    share: Float[Tensor, " b"],
    lambdas: tuple[float, float] = (1.0, 1.0),
) -> Losses:
    """Squared error of the velocities, a mean over each sample, summed by share.

    The shares of a whole batch sum to 1, wherever its parts are computed; a share of 0 counts for
    nothing. `lambdas` are those of video and audio. `t` is (b,), or (b, 2) for one each.
    """
    t_video, t_audio = each_time(t)
    velocity = model(_noised(video, t_video), _noised(audio, t_audio) if audio else None, t)
    each_seen = _error(velocity.video, video)
    seen = (each_seen * share).sum()
    if audio is None or velocity.audio is None:
        return Losses(lambdas[0] * seen, seen, None, (each_seen, None))
    each_heard = _error(velocity.audio, audio)
    heard = (each_heard * share).sum()
    total = lambdas[0] * seen + lambdas[1] * heard
    return Losses(total, seen, heard, (each_seen, each_heard))


@dataclass(frozen=True, slots=True)
class SamplerConfig:
    """How to sample (arXiv 2512.02457: 50 steps, guidance 5.0 and 4.5)."""

    steps: int = 50
    shift: float = 1.0
    guidance_video: float = 5.0
    guidance_audio: float = 4.5
    solver: Literal["euler", "unipc"] = "euler"
    """unipc is of second order, as Wan's own pipeline samples; fewer steps do."""

    def __post_init__(self) -> None:
        for name in ("steps", "shift"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")


@torch.inference_mode()
def sample(
    model: Model,
    video: Conditioned,
    audio: Conditioned | None,
    config: SamplerConfig,
    negative: tuple[Conditioned | None, Conditioned | None] = (None, None),
) -> Velocity:
    """Clean latents from the noise that the conditions hold as latents; both share one grid.

    The negative branch has the captions of `negative`, or none: zeros, and nothing unmasked. Its
    latents are not read. Without guidance there is no such branch. A model of video alone gives no
    audio.
    """
    solvers = _solver(config), _solver(config)
    now = video, audio
    silent = True
    for k, t in enumerate(solvers[0].sigmas[:-1]):
        at = torch.full((len(video.latents),), float(t), device=video.latents.device)
        velocity = _guided(model, now, negative, at, config)
        step = solvers[0].timesteps[k]
        x = solvers[0].step(velocity.video, step, now[0].latents, return_dict=False)[0]
        heard = now[1]
        if heard is not None and velocity.audio is not None:
            y = solvers[1].step(velocity.audio, step, heard.latents, return_dict=False)[0]
            heard, silent = _with_latents(heard, y), False
        now = _with_latents(now[0], x), heard
    return Velocity(now[0].latents, None if silent or now[1] is None else now[1].latents)


def _solver(config: SamplerConfig) -> Solver:
    """A scheduler of diffusers at the first of its steps; it remembers one modality's past."""
    if config.solver == "unipc":
        solver: Solver = UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=config.shift
        )
        solver.set_timesteps(config.steps)
    else:
        solver = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=config.shift)
        solver.set_timesteps(sigmas=torch.linspace(1, 1 / config.steps, config.steps).tolist())
    solver.set_begin_index(0)
    return solver


def _guided(
    model: Model,
    now: tuple[Conditioned, Conditioned | None],
    negative: tuple[Conditioned | None, Conditioned | None],
    t: Float[Tensor, " b"],
    config: SamplerConfig,
) -> Velocity:
    """Each modality with its own scale; both branches are joint (arXiv 2512.02457)."""
    positive = model(*now, t)
    scales = {config.guidance_video}
    if positive.audio is not None:
        scales.add(config.guidance_audio)
    if scales == {1.0}:
        return positive
    video = _recaptioned(now[0], negative[0])
    audio = None if now[1] is None else _recaptioned(now[1], negative[1])
    other = model(video, audio, t)
    seen = other.video + config.guidance_video * (positive.video - other.video)
    if positive.audio is None or other.audio is None:
        return Velocity(seen, None)
    heard = other.audio + config.guidance_audio * (positive.audio - other.audio)
    return Velocity(seen, heard)


def _noised(clean: Clean, t: Float[Tensor, " b"]) -> Conditioned:
    at = t.view(-1, *[1] * (clean.latents.ndim - 1))
    x_t = (1 - at) * clean.latents + at * clean.noise
    return Conditioned(x_t, clean.text, clean.text_mask)


def _error(velocity: Tensor, clean: Clean) -> Float[Tensor, " b"]:
    error = (velocity.float() - (clean.noise - clean.latents).float()).square()
    return error.flatten(1).mean(1)


def _with_latents(condition: Conditioned, latents: Tensor) -> Conditioned:
    return Conditioned(latents, condition.text, condition.text_mask)


def _recaptioned(condition: Conditioned, caption: Conditioned | None) -> Conditioned:
    """With another caption, or with none."""
    if caption is not None:
        return Conditioned(condition.latents, caption.text, caption.text_mask)
    text, mask = torch.zeros_like(condition.text), torch.zeros_like(condition.text_mask)
    return Conditioned(condition.latents, text, mask)
