"""Variants: what makes a video harder to curate, each with its exact truth.

A video has the same scene with a variant as without it, and draws each variant from a generator of
its own, so two corpora that differ in one share differ in that variant alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np

from avdata.pipeline.world.camera import drift, shake
from avdata.pipeline.world.occlusion import occlude
from avdata.pipeline.world.scene import Shot

LONGEST_GAP = 4
"""A variable rate leaves out fewer frames than this in a row."""


@dataclass(frozen=True, slots=True)
class VariantShares:
    """The share of the videos, 0..1, that each variant is given to. They are independent; one that
    a video cannot have (a lag without contacts, any sound in silence) it goes without."""

    occlusion: float = 0.0
    """A column passes before the scene and hides one contact or more."""
    shake: float = 0.0
    """The camera is held by hand."""
    drift: float = 0.0
    """The camera pans slowly."""
    lag: float = 0.0
    """The sound is early or late."""
    distractors: float = 0.0
    """Clicks, beeps, barks and syllables from nowhere in the picture."""
    music: float = 0.0
    """Chords and plucked notes under it all."""
    variable_rate: float = 0.0
    """Frames are missing, irregularly."""
    wrong_sound: float = 0.0
    """The sound is that of another video; it has no lag then."""

    def __post_init__(self) -> None:
        for name, share in self:
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is a share of the videos, 0 to 1, not {share}")

    def __iter__(self) -> Iterator[tuple[str, float]]:
        """Names and shares."""
        return ((one.name, getattr(self, one.name)) for one in fields(self))


MIXED = VariantShares(
    occlusion=0.3,
    shake=0.25,
    drift=0.25,
    lag=0.25,
    distractors=0.4,
    music=0.25,
    variable_rate=0.25,
    wrong_sound=0.15,
)
"""Something of everything: what curation is tested with."""

NAMES = tuple(one.name for one in fields(VariantShares))
CANNOT = {
    "silent": {"lag", "distractors", "music", "wrong_sound"},
    "slide": {"occlusion", "lag", "wrong_sound"},
    "offscreen": {"occlusion"},
}
"""What kinds of video go without: those without sound, contacts, contacts in the picture."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The variants of one video, in the order of `VariantShares`."""

    names: tuple[str, ...]
    seed: int
    index: int

    def dice(self, name: str) -> np.random.Generator:
        """What a variant is drawn from, from the beginning."""
        return _dice(self.seed, self.index, 2 + NAMES.index(name))


def chosen(shares: VariantShares, kind: str, seed: int, index: int) -> Chosen:
    """For a video of a kind."""
    draws = _dice(seed, index, 1).random(len(NAMES))
    names = [name for (name, share), drawn in zip(shares, draws, strict=True) if drawn < share]
    cannot = CANNOT.get(kind, set()) | ({"lag"} if "wrong_sound" in names else set())
    return Chosen(tuple(name for name in names if name not in cannot), seed, index)


def filmed(shots: tuple[Shot, ...], variants: Chosen) -> tuple[Shot, ...]:
    """The shots with those of the variants that are seen."""
    for name, change in (
        ("drift", drift),
        ("shake", shake),
        ("occlusion", occlude),
        ("variable_rate", thinned),
    ):
        if name in variants.names:
            rng = variants.dice(name)
            shots = tuple(change(shot, rng) for shot in shots)
    return shots


def thinned(shot: Shot, rng: np.random.Generator) -> Shot:
    """Without a fifth to half of its frames; the first and the last stay, so its ends do."""
    share, last = rng.uniform(0.2, 0.5), shot.span.num_frames - 1
    kept = [0]
    for number in range(1, last + 1):
        if rng.random() >= share or number in (last, kept[-1] + LONGEST_GAP):
            kept.append(number)
    if len(kept) == last + 1 and last > 1:
        kept.remove(int(rng.integers(1, last)))
    tracks = tuple(track[kept] for track in shot.tracks)
    return replace(shot, span=replace(shot.span, kept=tuple(kept)), tracks=tracks)


def _dice(seed: int, index: int, number: int) -> np.random.Generator:
    # `number` is not 0: SeedSequence does not tell (seed, index, 0) from (seed, index).
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, index, number))))
