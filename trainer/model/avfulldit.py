"""AVFullDiT (arXiv 2512.02457) and its video-only twin.

Two towers run alone first; then the last `num_joint` layers of both run in pairs, joined by one
attention over [video ; caption and duration ; audio]. Mode `t2v` is the video tower by itself:
the same layers, from the same initial weights for the same seed.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from avdata.encoders.spec import ClipShape, Specs, tau
from avdata.trainer.model.audio_tower import AudioTower
from avdata.trainer.model.config import Mode, ModelConfig
from avdata.trainer.model.joint_block import JointBlock
from avdata.trainer.model.modality import Conditioned, Velocity
from avdata.trainer.model.video_tower import VideoTower


class AVFullDiT(nn.Module):
    """Velocities of video and audio at one shared time."""

    def __init__(self, config: ModelConfig, specs: Specs, clip: ClipShape, mode: Mode) -> None:
        super().__init__()
        self.config = config
        self.mode = mode
        self.tau = tau(specs.video, specs.audio, clip.fps)
        self.video = VideoTower(config, specs.video.channels, specs.video_text.width)
        if mode == "t2av":
            self.audio = AudioTower(
                config,
                specs.audio.channels,
                specs.audio_text.width,
                specs.audio.latent_seconds(),
            )
            self.joints = nn.ModuleList(JointBlock(config) for _ in range(config.num_joint))

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

    def forward(
        self, video: Conditioned, audio: Conditioned | None, t: Float[Tensor, " b"]
    ) -> Velocity:
        """`t` is 0 for data and 1 for noise. Audio is given exactly in mode t2av."""
        assert (audio is not None) == (self.mode == "t2av"), f"audio given in mode {self.mode}"
        layers = self.config.video_layers
        seen = self.video.begin(video, t, self.tau)
        if audio is None:
            return Velocity(self.video.end(self.video.layers(seen, 0, layers)), None)
        first = layers - self.config.num_joint
        seen = self.video.layers(seen, 0, first)
        heard = self.audio.early(self.audio.begin(audio, t, self.tau))
        mask = self._mask(seen.tokens.shape[1], heard.mask)
        singles = self.audio.flux.single_transformer_blocks
        for joint, video_layer, audio_layer in zip(
            self.joints,
            self.video.wan.blocks[first:],
            singles[len(singles) - self.config.num_joint :],
            strict=True,
        ):
            joint(video_layer, audio_layer, seen, heard, mask)
        return Velocity(self.video.end(seen), self.audio.end(heard))

    def _mask(self, num_video: int, audio: Bool[Tensor, "b 1 1 n"]) -> Bool[Tensor, "b 1 1 m"]:
        everything = torch.ones(
            audio.shape[0], 1, 1, num_video, dtype=torch.bool, device=audio.device
        )
        return torch.cat([everything, audio], dim=-1)
