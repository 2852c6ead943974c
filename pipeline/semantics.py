"""What embeddings say of clips: scores of captions, zero-shot tags, and whether captions belong.

Letters: n clips, k classes, d width. Embeddings are of unit norm, so products are cosines.
"""

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray

from avdata import storage
from avdata.errors import UsageError

Medium = Literal["picture", "sound"]
MEDIA: tuple[Medium, ...] = ("picture", "sound")
CLASSES = Path(__file__).parent / "classes"
TEMPLATES = {"picture": "a photo of {}", "sound": "this is the sound of {}"}
MIN_PAIRS = 32
"""Fewer, or fewer different captions, prove nothing."""
BLOCK = 256
"""Pairs that are tested together, so that one block out of many that was mixed up shows."""
REACH = 3
"""Clips by which captions are looked for to either side."""
MIN_Z = 3.0
"""Standard errors: what belongs together by chance passes once in 740 blocks."""

Embeddings = Float32[ndarray, "n d"]


@dataclass(frozen=True, slots=True)
class Classes:
    """Names for tags, from a file with one a line; `#` begins a comment."""

    names: tuple[str, ...]
    digest: str


def load_classes(file: Path | None = None) -> Classes:
    """UsageError where there are none; None is the list of VGGSound."""
    path = file or CLASSES / "vggsound.txt"
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a file of text ({error})") from error
    names = tuple(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if len(names) < 2:
        raise UsageError(f"{path}: {len(names)} classes; write two or more, one a line")
    return Classes(names, storage.digest_json(list(names)))


def cosines(one: Embeddings, other: Embeddings) -> Float32[ndarray, " n"]:
    """Of each pair."""
    found: Float32[ndarray, " n"] = np.einsum("nd,nd->n", one, other)
    return found


def nearest(
    media: Embeddings, classes: Float32[ndarray, "k d"], names: tuple[str, ...], count: int
) -> list[list[str]]:
    """The `count` classes nearest to each, the nearest first."""
    tags: list[list[str]] = []
    count = min(count, len(names))
    for first in range(0, len(media), 65_536):
        near = media[first : first + 65_536] @ classes.T
        best = np.argpartition(-near, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(near, best, 1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, 1)
        tags += [[names[k] for k in row] for row in best]
    return tags


def chances(
    media: Embeddings, classes: Float32[ndarray, "k d"], scale: float
) -> Float32[ndarray, "n k"]:
    """Of each class for each clip: the softmax of cosines times `scale`, as CLIP has it (Radford
    et al. 2021, section 3.1).
    """
    found: Float32[ndarray, "n k"] = media @ classes.T
    found *= scale
    found -= found.max(axis=1, keepdims=True)
    np.exp(found, out=found)
    found /= found.sum(axis=1, keepdims=True)
    return found


def agreement(
    one: Float32[ndarray, "n k"], other: Float32[ndarray, "n k"]
) -> Float32[ndarray, " n"]:
    """Bhattacharyya coefficient of two distributions over the same classes, the sum of the roots
    of their products: 1 where they are the same, 0 where no class is possible in both.
    """
    found: Float32[ndarray, " n"] = np.einsum("nk,nk->n", np.sqrt(one), np.sqrt(other))
    return found.clip(0, 1)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A block of clips whose captions do not belong to them."""

    first: int
    last: int
    why: str


def mismatches(
    media: Embeddings, texts: Embeddings, captions: list[str], sources: list[str]
) -> list[Mismatch]:
    """Blocks in which a clip is no nearer to its own caption than to those of other sources, or
    nearer to the caption of a neighbour.

    Others are those of the block, for neighbours may be of one subject, and where it has few, as in
    a long film, those of a sample from elsewhere, too. Where all is of one source, its others.
    Blocks with too few clips or captions to tell are passed over.
    """
    found = []
    origin = np.unique(sources, return_inverse=True)[1]
    edges = [*range(0, max(1, len(media) - MIN_PAIRS + 1), BLOCK), len(media)]
    for first, end in itertools.pairwise(edges):
        if len(set(captions[first:end])) < MIN_PAIRS:
            continue
        mine, others = np.arange(first, end), np.arange(first, end)
        counts = np.bincount(origin[mine])
        if len(mine) - counts.max() < MIN_PAIRS:
            rest = np.flatnonzero(origin != counts.argmax())
            others = np.union1d(mine, rest[:: -(-len(rest) // BLOCK) or 1])
        other = origin[mine][:, None] != origin[others]
        if not other.any():
            other = mine[:, None] != others
        why = _mismatch(media[mine] @ texts[others].T, np.searchsorted(others, mine), other)
        if why is not None:
            found.append(Mismatch(first, end - 1, why))
    return found


def _mismatch(
    near: Float32[ndarray, "n m"], at: Int64[ndarray, " n"], other: Bool[ndarray, "n m"]
) -> str | None:
    """Of the cosines of every clip (row) with captions (columns), whose own are in columns `at`;
    `other` says which to compare with.
    """
    rows = np.arange(len(near))
    own = near[rows, at]
    others = (near * other).sum(axis=1) / other.sum(axis=1)
    if _z(own - others) < MIN_Z:
        return f"own captions score {own.mean():.3f}, others' {others.mean():.3f}"
    shifts = (*range(1, REACH + 1), *range(-REACH, 0))
    moved = {by: near[rows, np.roll(at, -by)] for by in shifts}
    best = max(shifts, key=lambda by: float(moved[by].mean()))
    if _z(moved[best] - own) > MIN_Z:
        return f"captions look moved by {best}: {own.mean():.3f}, there {moved[best].mean():.3f}"
    return None


def _z(differences: Float32[ndarray, " n"]) -> float:
    """How many standard errors their mean is from zero."""
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    mean = float(differences.mean())
    return mean / error if error > 0 else math.copysign(math.inf, mean)
