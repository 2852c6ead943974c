"""The numbers of an AVFullDiT, and presets.

What the paper leaves open is in docs/model.md: some of it is a field here, some is decided there.
"""

import difflib
from dataclasses import dataclass
from typing import Literal

from avdata.errors import UsageError

Mode = Literal["t2av", "t2v"]
Rope = Literal["sync", "vanilla", "expand_video"]
Fusion = Literal["full", "cross"]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes of the two towers and how they are joined.

    Defaults are the paper's backbones, Wan2.2-TI2V-5B and TangoFlux.
    """

    head_dim: int = 128
    """Shared: audio heads keep their place when their number grows to the video's."""
    video_heads: int = 24
    video_layers: int = 30
    video_ffn: int = 14_336
    audio_heads: int = 8
    audio_double_layers: int = 6
    audio_single_layers: int = 18
    num_joint: int = 18
    """So many last layers of both towers are joined. Not in the paper; 18 are all single ones."""
    max_video_text: int = 512
    """Video captions are padded with zeros to this and attended unmasked, as Wan does."""
    max_audio_text: int = 64
    fusion: Fusion = "full"
    """full is AVFull-Attention; cross keeps both towers' own attention in the last `num_joint`
    layers and adds cross-attention after each, the paper's baseline."""
    audio_caption: bool = False
    """Mode t2v only: the twin reads the audio caption, too, as more tokens of its cross-attention.
    The control that the paper lacks."""
    rope: Rope = "sync"
    """sync is AVSyncRoPE; the others are the paper's ablations."""
    new_std: float = 0.02
    """Initial spread of the new q, k, v matrices and of what embeds the audio caption for the
    twin. Not in the paper."""
    new_output_std: float = 0.0
    """Initial spread of the new output matrices; 0 starts from the pretrained output."""

    def __post_init__(self) -> None:
        sizes = ("head_dim", "video_heads", "video_layers", "video_ffn", "audio_heads")
        for name in (*sizes, "audio_single_layers", "max_video_text", "max_audio_text"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if min(self.num_joint, self.audio_double_layers) < 0:
            raise ValueError("num_joint and audio_double_layers must not be negative")
        if self.num_joint > min(self.video_layers, self.audio_single_layers):
            raise ValueError(
                f"num_joint = {self.num_joint} exceeds the video tower's {self.video_layers} "
                f"layers or the audio tower's {self.audio_single_layers} single layers"
            )
        if self.fusion == "cross" and self.num_joint == 0:
            raise ValueError("fusion = cross with num_joint = 0 joins nothing")
        if not (self.new_std > 0 and self.new_output_std >= 0):
            raise ValueError(
                f"new_std = {self.new_std} must be positive and new_output_std = "
                f"{self.new_output_std} not negative"
            )
        if self.audio_heads > self.video_heads:
            raise ValueError(
                f"audio_heads = {self.audio_heads} exceeds video_heads = {self.video_heads}: "
                "audio is widened to the video's width, not the other way"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even, not {self.head_dim}")

    @property
    def video_width(self) -> int:
        """C_v."""
        return self.video_heads * self.head_dim

    @property
    def audio_width(self) -> int:
        """C_a."""
        return self.audio_heads * self.head_dim


def demo() -> ModelConfig:
    """Trains on two CPU cores."""
    return ModelConfig(
        head_dim=32,
        video_heads=6,
        video_layers=6,
        video_ffn=768,
        audio_heads=2,
        audio_double_layers=1,
        audio_single_layers=5,
        num_joint=4,
        max_video_text=32,
        max_audio_text=32,
    )


def small() -> ModelConfig:
    """For one GPU: about 100 million parameters."""
    return ModelConfig(
        head_dim=64,
        video_heads=9,
        video_layers=16,
        video_ffn=2304,
        audio_heads=3,
        audio_double_layers=3,
        audio_single_layers=9,
        num_joint=9,
        max_video_text=128,
    )


def wan5b_tangoflux() -> ModelConfig:
    """The paper's."""
    return ModelConfig()


PRESETS = {"demo": demo, "small": small, "wan5b-tangoflux": wan5b_tangoflux}


def preset(name: str) -> ModelConfig:
    """A preset by its name; UsageError lists them."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(PRESETS)}"
        raise UsageError(f"no preset {name}; {hint}")
    return PRESETS[name]()
