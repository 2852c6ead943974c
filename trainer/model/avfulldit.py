"""AVFullDiT (arXiv 2512.02457) and its video-only twin.

Two towers run alone first; then the last `num_joint` layers of both run in pairs, joined by one
attention over [video ; caption and duration ; audio]. Mode `t2v` is the video tower by itself:
the same layers, from the same initial weights for the same seed.
"""

from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from avdata.encoders.spec import ClipShape, Specs, tau
from avdata.errors import UsageError
from avdata.trainer.model.audio_tower import AudioState, AudioTower
from avdata.trainer.model.config import Mode, ModelConfig
from avdata.trainer.model.cross_block import CrossBlock
from avdata.trainer.model.joint_block import JointBlock
from avdata.trainer.model.modality import Conditioned, Velocity, each_time
from avdata.trainer.model.recompute import forgetting
from avdata.trainer.model.video_tower import VideoState, VideoTower, require_whole_patches


class AVFullDiT(nn.Module):
    """Velocities of video and audio, at one shared time or at one time each."""

    def __init__(self, config: ModelConfig, specs: Specs, clip: ClipShape, mode: Mode) -> None:
        super().__init__()
        require_whole_patches(specs, clip)
        self.config = config
        self.mode = mode
        self.forget_activations = False
        self.tau = tau(specs.video, specs.audio, clip.fps)
        self.video = VideoTower(config, specs.video.channels, specs.video_text.width)
        if mode == "t2av":
            self.audio = AudioTower(
                config,
                specs.audio.channels,
                specs.audio_text.width,
                specs.audio.latent_seconds(),
            )
            block = JointBlock if config.fusion == "full" else CrossBlock
            self.joints = nn.ModuleList(block(config) for _ in range(config.num_joint))
        elif config.audio_caption:
            self.audio_caption = _caption_embedder(config, specs.audio_text.width)

    @classmethod
    def build(
        cls, config: ModelConfig, specs: Specs, clip: ClipShape, mode: Mode, seed: int
    ) -> "AVFullDiT":
        """Initialised from the seed alone; the video tower comes first and so is the same in both
        modes.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(config, specs, clip, mode)

    def checkpoint_activations(self) -> None:
        """From now on layers are computed again for their gradients, see `recompute`."""
        self.forget_activations = self.video.forget_activations = True
        if self.mode == "t2av":
            self.audio.forget_activations = True

    def freeze_towers(self) -> None:
        """Leaves only what no pretrained tower has to be trained."""
        self.video.requires_grad_(requires_grad=False)
        if self.mode == "t2av":
            self.audio.requires_grad_(requires_grad=False)

    def forward(
        self, video: Conditioned, audio: Conditioned | None, t: Float[Tensor, "b *two"]
    ) -> Velocity:
        """`t` is 0 for data and 1 for noise: (b,) for both modalities, or (b, 2) for each.

        Audio is given in mode t2av, and in t2v for its caption alone where the model reads it.
        """
        needed = self.mode == "t2av" or self.config.audio_caption
        if (audio is not None) != needed:
            given = "needs" if needed else "takes no"
            raise UsageError(f"a model of mode {self.mode} with these settings {given} audio")
        t_video, t_audio = each_time(t)
        seen = self.video.begin(video, t_video, self.tau)
        if audio is None or self.mode == "t2v":
            if audio is not None:
                seen.text = torch.cat([seen.text, self.audio_caption(audio.text)], dim=1)
            layers = self.config.video_layers
            return Velocity(self.video.end(self.video.layers(seen, 0, layers)), None)
        heard = self.audio.early(self.audio.begin(audio, t_audio, self.tau))
        first = self.config.video_layers - self.config.num_joint
        seen = self.video.layers(seen, 0, first)
        self._joined(seen, heard)
        return Velocity(self.video.end(seen), self.audio.end(heard))

    def _joined(self, seen: VideoState, heard: AudioState) -> None:
        """Advances both states through the joint layers."""
        count = self.config.num_joint
        singles = self.audio.flux.single_transformer_blocks
        pairs = zip(
            self.joints,
            self.video.wan.blocks[self.config.video_layers - count :],
            singles[len(singles) - count :],
            strict=True,
        )
        full = self.config.fusion == "full"
        mask = (self._mask(seen.tokens.shape[1], heard.mask),) if full else ()
        for joint, video_layer, audio_layer in pairs:
            # Copies of the states: a layer that is computed again must find what it was given.
            given = video_layer, audio_layer, replace(seen), replace(heard), *mask
            out = forgetting(self.forget_activations, partial(joint, *given))
            seen.tokens, heard.text, heard.audio = out.video, out.audio_text, out.audio

    def _mask(self, num_video: int, audio: Bool[Tensor, "b 1 1 n"]) -> Bool[Tensor, "b 1 1 m"]:
        everything = torch.ones(
            audio.shape[0], 1, 1, num_video, dtype=torch.bool, device=audio.device
        )
        return torch.cat([everything, audio], dim=-1)


def _caption_embedder(config: ModelConfig, text_width: int) -> nn.Sequential:
    """Two linear maps, as Wan embeds its own caption."""
    wide = config.video_width
    embedder = nn.Sequential(
        nn.Linear(text_width, wide), nn.GELU(approximate="tanh"), nn.Linear(wide, wide)
    )
    for name, value in embedder.named_parameters():
        nn.init.normal_(value, std=config.new_std if name.endswith("weight") else 0.0)
    return embedder
