"""Which encoders a run uses, and the four of them opened together."""

from dataclasses import dataclass, field
from typing import Annotated

import torch
from pydantic import Discriminator

from avdata.encoders.block_transform import BlockTransform
from avdata.encoders.encoder import AudioEncoder, TextEncoder, VideoEncoder
from avdata.encoders.hashed_tokens import HashedText
from avdata.encoders.lapped_transform import LappedTransform
from avdata.encoders.oobleck import OobleckAudio
from avdata.encoders.spec import Specs, TextSpec
from avdata.encoders.t5 import T5Text, UMT5Text
from avdata.encoders.wan import WanVideo

Video = Annotated[BlockTransform | WanVideo, Discriminator("kind")]
Audio = Annotated[LappedTransform | OobleckAudio, Discriminator("kind")]
Text = Annotated[HashedText | UMT5Text | T5Text, Discriminator("kind")]


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


@dataclass(frozen=True, slots=True)
class EncodersConfig:
    """One configuration a role, told apart by `kind`; by default those that need no weights."""

    video: Video = field(default_factory=BlockTransform)
    audio: Audio = field(default_factory=LappedTransform)
    video_text: Text = field(default_factory=HashedText)
    audio_text: Text = field(default_factory=HashedText)

    def specs(self) -> Specs:
        """What they are, without loading any; UsageError when weights are missing."""
        return Specs(
            video=self.video.spec(),
            audio=self.audio.spec(),
            video_text=_text_spec(self.video_text, "video"),
            audio_text=_text_spec(self.audio_text, "audio"),
        )

    def open(self, device: torch.device) -> Encoders:
        """Loads all four; UsageError when weights are missing or do not fit."""
        return Encoders(
            video=self.video.open(device),
            audio=self.audio.open(device),
            video_text=_open_text(self.video_text, "video", device),
            audio_text=_open_text(self.audio_text, "audio", device),
        )


def _text_spec(text: Text, role: str) -> TextSpec:
    return text.of_role(role).spec if isinstance(text, HashedText) else text.spec()


def _open_text(text: Text, role: str, device: torch.device) -> TextEncoder:
    return text.of_role(role) if isinstance(text, HashedText) else text.open(device)
