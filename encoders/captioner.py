"""What a captioner is: a model that is asked one thing about one clip.

A clip's picture and sound are asked about apart (arXiv 2512.02457 section 3.1), so a question
carries frames or samples: a caption of the sound cannot tell what was only seen. Only the question
for a joint caption carries both.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float32, UInt8
from numpy import ndarray

TRANSIENT_REASONS = (
    "budget",
    "timeout",
    "unreachable",
    "mismatched",
    "unreadable",
    "http_408",
    "http_429",
    "http_5xx",
)
"""Reasons that may pass: such questions are asked again by the next run."""
SAID = ("empty", "refused", "too_long", "cut_off")
"""Reasons that lie in what was said: all others are faults, of whoever is asked or of the media."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request; letters as in `encoder`."""

    id: str
    """Of clip and role; an answer that names another is not taken."""
    prompt: str
    frames: UInt8[ndarray, "n h w 3"] | None = None
    samples: Float32[ndarray, " m"] | None = None
    """One channel in -1..1."""
    sample_rate: int = 16_000


@dataclass(frozen=True, slots=True)
class Answer:
    """The model's own words, or a short stable reason why there are none."""

    text: str | None
    reason: str | None = None
    detail: str = ""

    @property
    def may_pass(self) -> bool:
        """Whether asking again may help."""
        return self.reason in TRANSIENT_REASONS


@runtime_checkable
class Captioner(Protocol):
    """Asked by several threads at once."""

    def ask(self, question: Question) -> Answer:
        """Never fails for one clip's sake; UsageError when no question can be asked at all."""

    def close(self) -> None:
        """Lets go of what it holds."""
