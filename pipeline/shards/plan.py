"""Which clip goes into which shard: a pure function of the set of selected clips.

Splits are decided by source, so no source is in two of them; within a split clips are ordered by
a hash of their id, which mixes sources. The order in which clips come in does not matter.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import xxhash

from avdata import storage
from avdata.encoders.spec import ClipShape
from avdata.pipeline.record import Clip
from avdata.pipeline.shards.facts import facts


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """How clips are dealt out."""

    samples_per_shard: int = 256
    val_fraction: float = 0.1
    """Share of the sources held out for validation."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples_per_shard < 1:
            raise ValueError(f"samples_per_shard must be positive, not {self.samples_per_shard}")
        if not 0 <= self.val_fraction < 1:
            raise ValueError(f"val_fraction must be in [0, 1), not {self.val_fraction}")


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """One shard to be."""

    name: str
    """BUCKET/SPLIT-NUMBER."""
    split: str
    bucket: str
    clips: list[Clip]
    digest: str
    """Changes whenever the shard's bytes would."""
    encoding_digest: str
    """Of the clip shape and the encoders; the same in every shard of a dataset."""


def plan_shards(
    clips: Iterable[Clip], shape: ClipShape, settings: PlanSettings, encoding: object = None
) -> list[ShardPlan]:
    """The shards of these clips; `encoding` is whatever else their bytes depend on, as JSON."""
    unique = {clip.clip_id: clip for clip in clips}
    held_out = _held_out({clip.source.digest for clip in unique.values()}, settings)
    bucket = f"{shape.num_frames}x{shape.height}x{shape.width}"
    plans = []
    for split in ("train", "val"):
        mine = [c for c in unique.values() if (c.source.digest in held_out) == (split == "val")]
        mine.sort(key=lambda clip: (_draw(clip.clip_id, settings.seed), clip.clip_id))
        for first in range(0, len(mine), settings.samples_per_shard):
            some = mine[first : first + settings.samples_per_shard]
            name = f"{bucket}/{split}-{first // settings.samples_per_shard:06d}"
            plans.append(_plan(name, split, bucket, some, [asdict(shape), encoding]))
    return plans


def _plan(name: str, split: str, bucket: str, clips: list[Clip], rest: object) -> ShardPlan:
    digest = storage.digest_json([name, [facts(clip) for clip in clips], rest])
    return ShardPlan(name, split, bucket, clips, digest, storage.digest_json(rest))


def _held_out(sources: set[str], settings: PlanSettings) -> set[str]:
    """Each source by its own draw, so that a source stays where it is when others come or go.

    At least one where there are two and a share is asked for; never all of them.
    """
    ordered = sorted(sources, key=lambda one: (_draw(one, settings.seed), one))
    below = sum(_draw(one, settings.seed) < settings.val_fraction * 2**64 for one in ordered)
    if settings.val_fraction > 0 and sources:
        below = min(max(1, below), len(sources) - 1)
    return set(ordered[:below])


def _draw(text: str, seed: int) -> int:
    return xxhash.xxh3_64_intdigest(text.encode(), seed=seed)
