"""The settings of `avdata semantics`."""

from dataclasses import dataclass, field
from pathlib import Path

from avdata import storage
from avdata.encoders.clap import Clap
from avdata.encoders.clip import OpenClip
from avdata.encoders.device import kind
from avdata.pipeline.embeddings import Embeddings
from avdata.pipeline.semantics import Classes, Medium, load_classes
from avdata.pipeline.shards.decoders import DecodeLimits
from avdata.pipeline.text_embeddings import TEXTS

VERSION = 1
"""Raise when the same clip gives another embedding; all are then made again."""
SAMPLE_RATE = 48_000
LONGER_SIDE = 448


@dataclass(frozen=True, slots=True)
class SemanticsConfig:
    """Which models, and what is made of their embeddings."""

    picture: OpenClip | None = None
    sound: Clap | None = None
    picture_classes: Path | None = None
    """A file of names for tags, one a line; None is VGGSound's."""
    sound_classes: Path | None = None
    tags: int = 3
    frames: int = 4
    """Evenly over the clip; its picture's embedding is their mean."""
    alike: float | None = None
    """Cosine from which two clips mean the same, such as 0.95; None looks for none."""
    guard: bool = True
    """Whether captions that do not belong to their clips stop the run."""
    device: str = "auto"
    batch_size: int | None = None
    """Clips whose frames are embedded at once; None is 1 on a CPU, 8 on a GPU."""
    text_batch_size: int = TEXTS
    """Captions and names of classes embedded at once."""
    threads: int = 2
    """Clips that each worker decodes at once, in child processes."""
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    """What decoding one clip may cost; beyond them it has a reason and no embedding."""
    max_failed_share: float = 0.1
    """Of clips that could not be decoded; more than one and more than this stops the run."""
    retry_failed: bool = False
    """Whether clips that could not be decoded are tried again, for whatever reason."""
    max_copies_gib: float = 16.0

    def __post_init__(self) -> None:
        for name in ("tags", "frames", "threads", "text_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, not {self.batch_size}")
        if not 0 <= self.max_failed_share <= 1:
            raise ValueError(f"max_failed_share must be in [0, 1], not {self.max_failed_share}")
        if self.alike is not None and not 0 < self.alike <= 1:
            raise ValueError(f"alike must be in (0, 1], not {self.alike}")
        kind(self.device)

    def model(self, medium: Medium) -> OpenClip | Clap | None:
        """Of one medium."""
        return self.picture if medium == "picture" else self.sound

    def classes(self, medium: Medium) -> Classes:
        """That its tags are of."""
        return load_classes(self.picture_classes if medium == "picture" else self.sound_classes)

    def store(self, root: Path, medium: Medium, ingested: str) -> Embeddings | None:
        """Where embeddings of a medium lie; UsageError when weights are missing."""
        model = self.model(medium)
        if model is None:
            return None
        spec = model.spec()
        shown = [self.frames, LONGER_SIDE] if medium == "picture" else [SAMPLE_RATE]
        fingerprint = storage.digest_json([VERSION, spec.digest, shown, ingested])
        return Embeddings(root, medium, fingerprint, spec.width)
