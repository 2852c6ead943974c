"""Encoders whose embeddings compare across modalities: a picture or a sound with a text.

All embeddings are float32 of unit norm, so the product of two is their cosine.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, UInt8
from torch import Tensor


@dataclass(frozen=True, slots=True)
class EmbeddingSpec:
    """What an embedder is."""

    name: str
    digest: str
    """Of weights and settings; equal digests give equal embeddings."""
    width: int


@runtime_checkable
class ImageText(Protocol):
    """Pictures and texts in one space."""

    @property
    def spec(self) -> EmbeddingSpec:
        """What it is."""

    @property
    def scale(self) -> float:
        """By which the model multiplies cosines before a softmax over texts, as it was trained."""

    def images(self, frames: list[UInt8[Tensor, "_ _ 3"]]) -> Float[Tensor, "b d"]:
        """Of single frames of any size, scaled and cropped as the model was trained."""

    def texts(self, texts: list[str]) -> Float[Tensor, "b d"]:
        """Of captions or names of classes; what is longer than the model reads is cut."""


@runtime_checkable
class AudioText(Protocol):
    """Sounds and texts in one space."""

    sample_rate: int

    @property
    def spec(self) -> EmbeddingSpec:
        """What it is."""

    @property
    def scale(self) -> float:
        """As `ImageText.scale`."""

    def sounds(self, samples: Float[Tensor, "b m"]) -> Float[Tensor, "b d"]:
        """Of one channel in -1..1 at `sample_rate`; of more than ten seconds the middle ten."""

    def texts(self, texts: list[str]) -> Float[Tensor, "b d"]:
        """As `ImageText.texts`."""
