"""The video tower: a Wan transformer, opened so that its last layers can be joined."""

from dataclasses import dataclass
from functools import partial

import torch
from diffusers.models.transformers.transformer_wan import (
    WanTransformer3DModel,
    WanTransformerBlock,
)
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from avdata.encoders.spec import ClipShape, Specs
from avdata.errors import UsageError
from avdata.trainer.model.config import ModelConfig
from avdata.trainer.model.modality import Conditioned, without_autocast
from avdata.trainer.model.recompute import forgetting
from avdata.trainer.model.rope import Rotation, rotation, video_axes, video_positions

PATCH = (1, 2, 2)


@dataclass(slots=True)
class VideoState:
    """What flows through the video tower's layers."""

    tokens: Float[Tensor, "b n c"]
    text: Float[Tensor, "b k c"]
    time: Float[Tensor, "b c"]
    time_parts: Float[Tensor, "b 6 c"]
    turned: Rotation
    grid: tuple[int, int, int]
    """Tokens along time, height and width."""


class VideoTower(nn.Module):
    """Everything of the video side that is not joined."""

    def __init__(self, config: ModelConfig, channels: int, text_width: int) -> None:
        super().__init__()
        self.config = config
        self.forget_activations = False
        self.wan = WanTransformer3DModel(
            patch_size=PATCH,
            num_attention_heads=config.video_heads,
            attention_head_dim=config.head_dim,
            in_channels=channels,
            out_channels=channels,
            text_dim=text_width,
            freq_dim=256,
            ffn_dim=config.video_ffn,
            num_layers=config.video_layers,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            rope_max_seq_len=1024,
        )

    def begin(self, video: Conditioned, t: Float[Tensor, " b"], scale: float) -> VideoState:
        """Embeds; `scale` is tau, `t` in 0..1."""
        patches = self.wan.patch_embedding(video.latents)
        frames, rows, columns = patches.shape[2:]
        grid = (int(frames), int(rows), int(columns))
        embed = self.wan.condition_embedder
        with without_autocast(t.device):
            time = embed.time_embedder(embed.timesteps_proj(t.float() * 1000))
            parts = embed.time_proj(embed.act_fn(time))
        positions = video_positions(grid, self.config.rope, scale, patches.device)
        return VideoState(
            tokens=rearrange(patches, "b c t h w -> b (t h w) c").contiguous(),
            text=embed.text_embedder(video.text),
            time=time,
            time_parts=rearrange(parts, "b (six c) -> b six c", six=6),
            turned=rotation(positions, video_axes(self.config.head_dim)),
            grid=grid,
        )

    def layers(self, state: VideoState, first: int, last: int) -> VideoState:
        """Layers `first` to `last` - 1 as they are."""
        for block in self.wan.blocks[first:last]:
            given = state.tokens, state.text, state.time_parts, state.turned.as_wan()
            state.tokens = forgetting(self.forget_activations, partial(block, *given))
        return state

    def end(self, state: VideoState) -> Float[Tensor, "b c t h w"]:
        """The velocity."""
        table = self.wan.scale_shift_table + state.time[:, None]
        shift, scale = table.chunk(2, dim=1)
        x = state.tokens
        normed = (self.wan.norm_out(x.float()) * (1 + scale) + shift).type_as(x)
        out: Tensor = self.wan.proj_out(normed)
        t, h, w = state.grid
        p, q, r = PATCH
        shape = {"t": t, "h": h, "w": w, "p": p, "q": q, "r": r}
        return rearrange(out, "b (t h w) (p q r c) -> b c (t p) (h q) (w r)", **shape)


def require_whole_patches(specs: Specs, clip: ClipShape) -> None:
    """UsageError unless the latents of a clip can be cut into the tower's patches."""
    strides = specs.video.stride_height, specs.video.stride_width
    for name, size, stride, patch in zip(
        ("height", "width"), (clip.height, clip.width), strides, PATCH[1:], strict=True
    ):
        if size % (stride * patch):
            raise UsageError(
                f"{name} {size}: this model takes multiples of {stride * patch}; "
                f"encode the clips in another size"
            )


def modulation(layer: WanTransformerBlock, parts: Float[Tensor, "b 6 c"]) -> tuple[Tensor, ...]:
    """Shift, scale, gate of the attention, then of the feed-forward, each (b 1 c)."""
    return torch.chunk(layer.scale_shift_table + parts.float(), 6, dim=1)
