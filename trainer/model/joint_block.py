"""AVFull-Attention: one video layer and one audio layer joined by one attention (section 1.3).

Audio queries, keys and values are widened to the video's width by new matrices beside the
pretrained ones, and come back through a new matrix beside the pretrained output. Everything else
of both layers stays as it is and is called in place. With attention between the modalities
masked out and the new output at zero, the pair equals the two pretrained layers exactly.
"""

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from avdata.trainer.model.audio_tower import AudioState
from avdata.trainer.model.config import ModelConfig
from avdata.trainer.model.modality import Advanced
from avdata.trainer.model.rope import rotate
from avdata.trainer.model.video_tower import VideoState, modulation


class JointBlock(nn.Module):
    """The new matrices of one joint layer; the layers themselves belong to their towers."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        narrow, extra = config.audio_width, config.video_width - config.audio_width
        self.head_dim = config.head_dim
        self.new_q, self.new_k, self.new_v = (nn.Linear(narrow, extra) for _ in range(3))
        self.new_out = nn.Linear(extra, narrow, bias=False)
        for new in (self.new_q, self.new_k, self.new_v):
            nn.init.normal_(new.weight, std=config.new_std)
            nn.init.zeros_(new.bias)
        nn.init.normal_(self.new_out.weight, std=config.new_output_std)

    def forward(
        self,
        video_layer: WanTransformerBlock,
        audio_layer: FluxSingleTransformerBlock,
        video: VideoState,
        audio: AudioState,
        mask: Bool[Tensor, "b 1 q k"],
    ) -> Advanced:
        """The streams after the layer; `mask` is over [video ; caption and duration ; audio]."""
        shift, scale, gate, *_ = parts = modulation(video_layer, video.time_parts)
        seen = (video_layer.norm1(video.tokens.float()) * (1 + scale) + shift).to(video.tokens)
        video_qkv = self._video_qkv(video_layer, seen, video)
        heard = torch.cat([audio.text, audio.audio], dim=1)
        normed, audio_gate = audio_layer.norm(heard, emb=audio.time)
        audio_qkv = self._audio_qkv(audio_layer, normed, audio)

        q, k, v = (torch.cat(pair, dim=1) for pair in zip(video_qkv, audio_qkv, strict=True))
        q, k, v = (rearrange(x, "b n h d -> b h n d") for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out = rearrange(out, "b h n d -> b n (h d)")
        num_video = video.tokens.shape[1]

        x = self._end_video(video_layer, out[:, :num_video], video, gate, parts)
        mixed = self._audio_out(audio_layer, out[:, num_video:], normed)
        heard = heard + audio_gate[:, None] * mixed
        num_text = audio.text.shape[1]
        return Advanced(x, heard[:, :num_text], heard[:, num_text:])

    def _video_qkv(
        self, layer: WanTransformerBlock, seen: Float[Tensor, "b n c"], video: VideoState
    ) -> tuple[Tensor, Tensor, Tensor]:
        attn = layer.attn1
        q, k = attn.norm_q(attn.to_q(seen)), attn.norm_k(attn.to_k(seen))
        q, k, v = (self._heads(x) for x in (q, k, attn.to_v(seen)))
        return rotate(q, video.turned), rotate(k, video.turned), v

    def _audio_qkv(
        self, layer: FluxSingleTransformerBlock, normed: Float[Tensor, "b n c"], audio: AudioState
    ) -> tuple[Tensor, Tensor, Tensor]:
        attn = layer.attn
        q, k, v = (
            self._heads(torch.cat([old(normed), new(normed)], dim=-1))
            for old, new in (
                (attn.to_q, self.new_q),
                (attn.to_k, self.new_k),
                (attn.to_v, self.new_v),
            )
        )
        # The pretrained per-head norms serve the new heads, too.
        q, k = attn.norm_q(q), attn.norm_k(k)
        return rotate(q, audio.turned), rotate(k, audio.turned), v

    def _end_video(
        self,
        layer: WanTransformerBlock,
        attended: Float[Tensor, "b n c"],
        video: VideoState,
        gate: Tensor,
        parts: tuple[Tensor, ...],
    ) -> Float[Tensor, "b n c"]:
        x = video.tokens
        x = (x.float() + layer.attn1.to_out[0](attended) * gate).type_as(x)
        x = x + layer.attn2(layer.norm2(x.float()).type_as(x), video.text, None, None)
        _, _, _, shift, scale, gate = parts
        normed = (layer.norm3(x.float()) * (1 + scale) + shift).type_as(x)
        out: Tensor = (x.float() + layer.ffn(normed).float() * gate).type_as(x)
        return out

    def _audio_out(
        self,
        layer: FluxSingleTransformerBlock,
        attended: Float[Tensor, "b n wide"],
        normed: Float[Tensor, "b n c"],
    ) -> Float[Tensor, "b n c"]:
        narrow = normed.shape[-1]
        mlp = layer.act_mlp(layer.proj_mlp(normed))
        pretrained = layer.proj_out(torch.cat([attended[..., :narrow], mlp], dim=-1))
        out: Tensor = pretrained + self.new_out(attended[..., narrow:])
        return out

    def _heads(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n heads d"]:
        return rearrange(x, "b n (h d) -> b n h d", d=self.head_dim)
