"""The paper's ablation of AVFull-Attention: cross-attention beside unimodal layers.

Both layers run as they are; then each stream reads the other's tokens of the same moment in the
towers, through a module of its own. Captions take no part. The paper does not say where in a layer
the module stands: here it comes after it, and with `new_output_std` 0 the pair starts as the two
pretrained layers.
"""

import torch.nn.functional as F
from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from avdata.trainer.model.audio_tower import AudioState, alone
from avdata.trainer.model.config import ModelConfig
from avdata.trainer.model.modality import Advanced
from avdata.trainer.model.rope import Rotation, rotate
from avdata.trainer.model.video_tower import VideoState


class CrossBlock(nn.Module):
    """The new modules of one pair of layers; the layers themselves belong to their towers."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.into_video = CrossAttention(config, config.video_width, config.audio_width)
        self.into_audio = CrossAttention(config, config.audio_width, config.video_width)

    def forward(
        self,
        video_layer: WanTransformerBlock,
        audio_layer: FluxSingleTransformerBlock,
        video: VideoState,
        audio: AudioState,
    ) -> Advanced:
        """The streams after the layers and the exchange."""
        seen = video_layer(video.tokens, video.text, video.time_parts, video.turned.as_wan())
        text, heard = alone(audio_layer, audio)
        sound = Rotation(*(x[text.shape[1] :] for x in audio.turned.as_pair()))
        return Advanced(
            video=seen + self.into_video(seen, video.turned, heard, sound),
            audio_text=text,
            audio=heard + self.into_audio(heard, sound, seen, video.turned),
        )


class CrossAttention(nn.Module):
    """Queries of one stream, keys and values of the other, at the reader's width."""

    def __init__(self, config: ModelConfig, width: int, other: int) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.norm_other = nn.LayerNorm(other, elementwise_affine=False, eps=1e-6)
        self.new_q, self.new_out = nn.Linear(width, width), nn.Linear(width, width)
        self.new_k, self.new_v = nn.Linear(other, width), nn.Linear(other, width)
        self.norm_q = nn.RMSNorm(config.head_dim, eps=1e-6)
        self.norm_k = nn.RMSNorm(config.head_dim, eps=1e-6)
        for new in (self.new_q, self.new_k, self.new_v, self.new_out):
            std = config.new_output_std if new is self.new_out else config.new_std
            nn.init.normal_(new.weight, std=std)
            nn.init.zeros_(new.bias)

    def forward(
        self,
        tokens: Float[Tensor, "b n c"],
        turned: Rotation,
        other: Float[Tensor, "b m d"],
        other_turned: Rotation,
    ) -> Float[Tensor, "b n c"]:
        """What is added to `tokens`; both streams are rotated by their own positions."""
        x, y = self.norm(tokens), self.norm_other(other)
        q, k, v = (
            rearrange(one, "b n (h d) -> b n h d", d=self.head_dim)
            for one in (self.new_q(x), self.new_k(y), self.new_v(y))
        )
        q, k = rotate(self.norm_q(q), turned), rotate(self.norm_k(k), other_turned)
        q, k, v = (rearrange(one.type_as(v), "b n h d -> b h n d") for one in (q, k, v))
        read = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.new_out(rearrange(read, "b h n d -> b n (h d)"))
        return out
