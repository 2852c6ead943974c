"""A tiny model and random inputs with the real structure, for tests."""

import math

import torch
from torch import Tensor, nn

from avdata.encoders.spec import AudioSpec, ClipShape, Specs, TextSpec, VideoSpec
from avdata.trainer.model.audio_tower import AudioTower
from avdata.trainer.model.config import ModelConfig
from avdata.trainer.model.modality import Conditioned

SPECS = Specs(
    video=VideoSpec("v", "0", channels=4),
    audio=AudioSpec("a", "0", channels=6),
    video_text=TextSpec("vt", "0", width=10, max_tokens=5),
    audio_text=TextSpec("at", "0", width=12, max_tokens=5),
)
CLIP = ClipShape(num_frames=9, fps=16, height=64, width=64)
CONFIG = ModelConfig(
    head_dim=16,
    video_heads=3,
    video_layers=3,
    video_ffn=64,
    audio_heads=1,
    audio_double_layers=1,
    audio_single_layers=3,
    num_joint=2,
    max_video_text=5,
    max_audio_text=5,
    new_std=0.2,
    new_output_std=0.2,
)


def inputs(batch: int = 2, seed: int = 0) -> tuple[Conditioned, Conditioned, torch.Tensor]:
    """Video, audio and times; the second caption of each modality is shorter."""
    g = torch.Generator().manual_seed(seed)
    mask = torch.ones(batch, 5, dtype=torch.bool)
    mask[1:, 3:] = False
    video_text = torch.randn(batch, 5, 10, generator=g) * mask[..., None]
    audio_text = torch.randn(batch, 5, 12, generator=g) * mask[..., None]
    video = torch.randn(batch, *SPECS.video.latent_shape(9, 64, 64), generator=g)
    audio = torch.randn(batch, 6, SPECS.audio.latent_length(CLIP.num_samples), generator=g)
    t = torch.rand(batch, generator=g)
    return Conditioned(video, video_text, mask), Conditioned(audio, audio_text, mask), t


def duration_token(tower: AudioTower, share: Tensor) -> Tensor:
    """(b, width), written out by TangoFlux's formula, of shares of the longest duration."""
    angle = 2 * math.pi * share[:, None] * tower.duration.frequencies
    features = torch.cat([share[:, None], torch.sin(angle), torch.cos(angle)], dim=1)
    linear = tower.duration.linear
    return nn.functional.linear(features, linear.weight, linear.bias)


def conditioning(tower: AudioTower, audio: Conditioned) -> tuple[Tensor, Tensor]:
    """Caption with duration, and the pooled caption, of captions without padding."""
    share = audio.latents.shape[-1] * SPECS.audio.latent_seconds() / 30
    shares = torch.full((len(audio.text),), share)
    text = torch.cat([audio.text, duration_token(tower, shares)[:, None]], dim=1)
    weight, bias = tower.pool.parameters()
    pooled = nn.functional.linear(audio.text.mean(1), weight, bias).relu()
    return text, pooled
