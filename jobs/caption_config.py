"""The settings of `avdata caption`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Discriminator

from avdata import storage
from avdata.encoders.device import kind
from avdata.encoders.endpoint import Endpoint
from avdata.encoders.multimodal_lm import MultimodalLM
from avdata.pipeline.caption_text import Prompt, Role, load_prompt
from avdata.pipeline.captions import TemplateCaptions
from avdata.pipeline.shards.decoders import DecodeLimits

VERSION = 1
"""Raise when the same clip gives another question; all are then asked again."""
Asked = Endpoint | MultimodalLM
Source = Annotated[TemplateCaptions | Asked, Discriminator("kind")]
Model = Annotated[Asked, Discriminator("kind")]


@dataclass(frozen=True, slots=True)
class CaptionConfig:
    """Who captions picture and sound, and what it is given."""

    video: Source = field(default_factory=TemplateCaptions)
    audio: Source = field(default_factory=TemplateCaptions)
    joint: Model | None = None
    """Whom to ask about picture and sound together, on top of the two; None asks nobody."""
    video_prompt: Path | None = None
    """A file of text; None is the packaged prompt."""
    audio_prompt: Path | None = None
    joint_prompt: Path | None = None
    frames: int = 8
    """Evenly over the clip."""
    longer_side: int = 448
    """Pixels."""
    sample_rate: int = 16_000
    threads: int = 8
    """Clips that each worker reads and asks about at once."""
    max_failures_in_a_row: int = 20
    """So many clips that an endpoint or a model fails to answer stop the run."""
    max_failed_share: float = 0.1
    """Of clips that could not be decoded or asked about; more than one and more than this stops
    the run. What is refused or empty has been asked about."""
    retry_failed: bool = False
    """Whether clips without a caption are asked about again, for whatever reason they have none."""
    max_copies_gib: float = 16.0
    """Local copies of remote sources."""
    device: str = "auto"
    """Of models in this process."""
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    """What decoding one clip may cost; beyond them it has a reason and no caption."""

    def __post_init__(self) -> None:
        for name in ("frames", "threads", "max_failures_in_a_row"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if not 0 <= self.max_failed_share <= 1:
            raise ValueError(f"max_failed_share must be in [0, 1], not {self.max_failed_share}")
        if self.longer_side < 32 or self.sample_rate < 8000:
            raise ValueError("longer_side must be 32 at least, sample_rate 8000 at least")
        kind(self.device)

    def prompt(self, role: Role) -> Prompt:
        """Of one role."""
        files = {"video": self.video_prompt, "audio": self.audio_prompt, "joint": self.joint_prompt}
        return load_prompt(role, files[role])

    def fingerprint(self, role: Role, who: Asked, ingested: str) -> str:
        """Of all that an answer depends on; UsageError when weights are missing."""
        seen = [] if role == "audio" else [self.frames, self.longer_side]
        heard = [] if role == "video" else [self.sample_rate]
        prompt = self.prompt(role).digest
        return storage.digest_json([VERSION, role, ingested, who.identity(), prompt, seen + heard])
