"""The default text encoder: hashed character n-grams of each word, no weights.

Every machine gives the same vectors; like words get like vectors. A small sinusoidal part carries
the place in the sentence, since cross-attention itself does not know the order of its keys.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
import torch
import xxhash
from jaxtyping import Float32
from numpy import ndarray
from torch import Tensor

from avdata import storage
from avdata.encoders.spec import TextSpec

VERSION = 1
TOKEN = re.compile(r"\w+|[^\w\s]")
ORDER_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class HashedText:
    """Configuration; it has no settings."""

    kind: Literal["hashed-tokens"] = "hashed-tokens"

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def of_role(self, role: str) -> "HashedTokens":
        """The encoder of the captions of `role`, video or audio."""
        return HashedTokens(f"{self.kind}-{role}")


@dataclass(frozen=True, slots=True)
class HashedTokens:
    """A `TextEncoder`; there is nothing to load."""

    name: str
    width: int = 64
    """Numbers per token, even."""
    max_tokens: int = 64

    @property
    def spec(self) -> TextSpec:
        """Its name is part of what it is: two roles are two specs."""
        digest = storage.digest_json([VERSION, ORDER_SHARE, self.width, self.max_tokens])
        return TextSpec(self.name, digest, self.width, self.max_tokens)

    def encode(self, captions: list[str]) -> list[Float32[Tensor, "_ {self.width}"]]:
        """See `TextEncoder.encode`; an empty caption is one token."""
        return [self._one(caption) for caption in captions]

    def _one(self, caption: str) -> Float32[Tensor, "_ {self.width}"]:
        words = TOKEN.findall(caption.lower())[: self.max_tokens] or [""]
        meaning = np.stack([_word(word, self.width) for word in words])
        place = _places(len(words), self.width)
        tokens = np.sqrt(1 - ORDER_SHARE) * meaning + np.sqrt(ORDER_SHARE) * place
        return torch.from_numpy(tokens.astype(np.float32))


@lru_cache(maxsize=65_536)
def _word(word: str, width: int) -> Float32[ndarray, " width"]:
    """Unit variance: the word itself and its 3-grams, each a Gaussian drawn from its hash."""
    marked = f"<{word}>"
    grams = [marked[k : k + 3] for k in range(max(1, len(marked) - 2))]
    total = np.zeros(width)
    for gram in (word, *grams):
        seed = xxhash.xxh3_64_intdigest(gram.encode())
        total += np.random.Generator(np.random.Philox(seed)).standard_normal(width)
    vector: Float32[ndarray, " width"] = (total / np.sqrt(np.mean(total**2))).astype(np.float32)
    return vector


def _places(count: int, width: int) -> Float32[ndarray, "count width"]:
    """Unit variance sinusoids of the place (Vaswani et al. 2017, section 3.5)."""
    rate = 100.0 ** (-np.arange(width // 2) / (width // 2))
    angle = np.arange(count)[:, None] * rate
    waves: Float32[ndarray, "count width"] = (
        np.sqrt(2) * np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    ).astype(np.float32)
    return waves
