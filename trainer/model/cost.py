"""What a model costs: parameters and floating-point operations, counted on the meta device.

Nothing is allocated, so the paper's size is counted on a laptop. Operations are those of matrix
products and attention, two for each multiplication with addition, as torch's FlopCounterMode counts
them: a forward pass, and a training step with its backward pass.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from avdata.encoders.spec import AudioSpec, ClipShape, Specs, TextSpec, VideoSpec
from avdata.trainer.model.avfulldit import AVFullDiT
from avdata.trainer.model.config import Mode, ModelConfig
from avdata.trainer.model.modality import Conditioned, Velocity
from avdata.trainer.model.video_tower import PATCH

PAPER_SPECS = Specs(
    video=VideoSpec("Wan2.2 VAE", ""),
    audio=AudioSpec("Oobleck", ""),
    video_text=TextSpec("umT5-XXL", "", width=4096, max_tokens=512),
    audio_text=TextSpec("FLAN-T5-large", "", width=1024, max_tokens=64),
)
"""Shapes of the paper's encoders (arXiv 2512.02457); they name no weights."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Operations for one sample; attention is quadratic in its length, so for one shape of clip."""

    tokens_video: int
    tokens_audio: int
    """Caption and duration included; 0 in mode t2v."""
    flops_forward: int
    flops_step: int
    """Forward and backward pass, without recomputed activations and without the optimizer."""


def meta_model(config: ModelConfig, specs: Specs, clip: ClipShape, mode: Mode) -> AVFullDiT:
    """Shapes and names without numbers."""
    with torch.device("meta"):
        return AVFullDiT(config, specs, clip, mode)


def cost(model: AVFullDiT, specs: Specs, clip: ClipShape, batch: int = 1) -> Cost:
    """Of a batch; `model` is on the meta device."""
    shape = specs.video.latent_shape(clip.num_frames, clip.height, clip.width)
    return cost_of_latents(model, specs, shape, specs.audio.latent_length(clip.num_samples), batch)


def cost_of_latents(
    model: AVFullDiT, specs: Specs, shape: tuple[int, ...], length: int, batch: int = 1
) -> Cost:
    """The same by the shape of video's latents and the length of audio's."""
    with torch.device("meta"):
        video, audio = conditions(model, specs, shape, length, batch)
        with FlopCounterMode(display=False) as counter:
            out: Velocity = model(video, audio, torch.empty(batch))
            forward = counter.get_total_flops()
            total: Tensor = out.video.sum() + (0 if out.audio is None else out.audio.sum())
            total.backward()
    return Cost(
        tokens_video=shape[1] * shape[2] * shape[3] // math.prod(PATCH),
        tokens_audio=length + model.config.max_audio_text + 1 if model.mode == "t2av" else 0,
        flops_forward=forward,
        flops_step=counter.get_total_flops(),
    )


def conditions(
    model: AVFullDiT, specs: Specs, shape: tuple[int, ...], length: int, batch: int
) -> tuple[Conditioned, Conditioned | None]:
    """What the model takes, without numbers; audio where it takes any."""
    config = model.config
    video = _condition(batch, shape, config.max_video_text, specs.video_text.width)
    sound = (specs.audio.channels, length)
    audio = _condition(batch, sound, config.max_audio_text, specs.audio_text.width)
    return video, audio if model.mode == "t2av" or config.audio_caption else None


def _condition(batch: int, shape: tuple[int, ...], tokens: int, width: int) -> Conditioned:
    mask = torch.ones(batch, tokens, dtype=torch.bool)
    return Conditioned(torch.empty(batch, *shape), torch.empty(batch, tokens, width), mask)
