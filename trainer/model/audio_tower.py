"""The audio tower: a Flux transformer used as TangoFlux uses it (arXiv 2412.21037).

Beside the transformer it has what TangoFlux adds: a pooled caption and a token for the duration,
appended to the caption.
"""

import math
from dataclasses import dataclass, replace
from functools import partial

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from avdata.trainer.model.config import ModelConfig
from avdata.trainer.model.modality import Conditioned, without_autocast
from avdata.trainer.model.recompute import forgetting
from avdata.trainer.model.rope import Rotation, audio_axes, audio_positions, rotation

MAX_SECONDS = 30.0
DURATION_FREQUENCIES = 128


@dataclass(slots=True)
class AudioState:
    """What flows through the audio tower's layers."""

    text: Float[Tensor, "b k c"]
    """Caption tokens and the duration token."""
    audio: Float[Tensor, "b l c"]
    time: Float[Tensor, "b c"]
    turned: Rotation
    mask: Bool[Tensor, "b 1 1 n"]
    """False at padded caption tokens, which nothing attends to."""


class AudioTower(nn.Module):
    """Everything of the audio side that is not joined."""

    def __init__(
        self, config: ModelConfig, channels: int, text_width: int, latent_seconds: float
    ) -> None:
        super().__init__()
        self.config = config
        self.forget_activations = False
        self.latent_seconds = latent_seconds
        self.flux = FluxTransformer2DModel(
            patch_size=1,
            in_channels=channels,
            num_layers=config.audio_double_layers,
            num_single_layers=config.audio_single_layers,
            attention_head_dim=config.head_dim,
            num_attention_heads=config.audio_heads,
            joint_attention_dim=text_width,
            pooled_projection_dim=config.audio_width,
            guidance_embeds=False,
            axes_dims_rope=audio_axes(config.head_dim),
        )
        self.pool = nn.Sequential(nn.Linear(text_width, config.audio_width), nn.ReLU())
        self.duration = DurationToken(text_width)

    def begin(self, audio: Conditioned, t: Float[Tensor, " b"], scale: float) -> AudioState:
        """Embeds; `scale` is tau, `t` in 0..1. The clip's length gives the duration token."""
        x = rearrange(audio.latents, "b c l -> b l c")
        batch, length = x.shape[:2]
        weight = audio.text_mask[..., None].to(audio.text)
        mean = (audio.text * weight).sum(1) / weight.sum(1).clamp_min(1.0)
        with without_autocast(t.device):
            duration = self.duration(torch.full_like(t, length * self.latent_seconds))
            time = self.flux.time_text_embed(t * 1000, self.pool(mean))
        text = torch.cat([audio.text * weight, duration[:, None].to(audio.text)], dim=1)
        positions = audio_positions(text.shape[1], length, self.config.rope, scale, x.device)
        real = torch.ones(batch, 1 + length, dtype=torch.bool, device=x.device)
        return AudioState(
            text=self.flux.context_embedder(text),
            audio=self.flux.x_embedder(x),
            time=time,
            turned=rotation(positions, audio_axes(self.config.head_dim)),
            mask=torch.cat([audio.text_mask, real], dim=1)[:, None, None, :],
        )

    def early(self, state: AudioState) -> AudioState:
        """The layers before the joint ones."""
        num_early = self.config.audio_single_layers - self.config.num_joint
        singles = self.flux.single_transformer_blocks[:num_early]
        for block in (*self.flux.transformer_blocks, *singles):
            state.text, state.audio = forgetting(
                self.forget_activations, partial(alone, block, replace(state))
            )
        return state

    def end(self, state: AudioState) -> Float[Tensor, "b c l"]:
        """The velocity."""
        out: Tensor = self.flux.proj_out(self.flux.norm_out(state.audio, state.time))
        return rearrange(out, "b l c -> b c l")


def alone(layer: nn.Module, state: AudioState) -> tuple[Tensor, Tensor]:
    """Caption and sound after one of the tower's own layers, double or single."""
    text, audio = layer(
        hidden_states=state.audio,
        encoder_hidden_states=state.text,
        temb=state.time,
        image_rotary_emb=state.turned.as_pair(),
        joint_attention_kwargs={"attention_mask": state.mask},
    )
    return text, audio


class DurationToken(nn.Module):
    """Seconds to one caption token: learned Fourier features and a linear map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.randn(DURATION_FREQUENCIES))
        self.linear = nn.Linear(2 * DURATION_FREQUENCIES + 1, width)

    def forward(self, seconds: Float[Tensor, " b"]) -> Float[Tensor, "b width"]:
        share = (seconds / MAX_SECONDS).clamp(0, 1)[:, None]
        angle = 2 * math.pi * share * self.frequencies
        out: Tensor = self.linear(torch.cat([share, angle.sin(), angle.cos()], dim=1))
        return out
