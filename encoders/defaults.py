"""The four encoders of a run, opened together."""

from dataclasses import dataclass

import torch

from avdata.encoders.block_transform import BlockTransform
from avdata.encoders.encoder import AudioEncoder, TextEncoder, VideoEncoder
from avdata.encoders.hashed_tokens import HashedTokens
from avdata.encoders.lapped_transform import LappedTransform
from avdata.encoders.spec import Specs


@dataclass(frozen=True, slots=True)
class Encoders:
    """Open encoders by role."""

    video: VideoEncoder
    audio: AudioEncoder
    video_text: TextEncoder
    audio_text: TextEncoder

    @property
    def specs(self) -> Specs:
        """What they are."""
        return Specs(self.video.spec, self.audio.spec, self.video_text.spec, self.audio_text.spec)


def open_defaults(device: torch.device) -> Encoders:
    """The embedded ones, which need no weights."""
    return Encoders(
        video=BlockTransform().open(device),
        audio=LappedTransform().open(device),
        video_text=HashedTokens("hashed-tokens-video"),
        audio_text=HashedTokens("hashed-tokens-audio"),
    )
