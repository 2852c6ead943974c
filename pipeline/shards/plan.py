"""Which clip goes into which shard: a pure function of the set of selected clips.

Splits are decided by families of sources, which share pictures or sounds or mean the same, so no
source and no duplicate is in two of them; within a bucket of a split clips are ordered by a hash
of their id, which mixes sources. The order in which clips come in does not matter.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass

import xxhash

from avdata import storage
from avdata.encoders.spec import ClipShape
from avdata.pipeline.record import Clip
from avdata.pipeline.shards.buckets import bucket_name
from avdata.pipeline.shards.facts import facts, groups


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """How clips are dealt out."""

    samples_per_shard: int = 256
    val_fraction: float = 0.1
    """Share of the sources held out for validation, those that share a group as one."""
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
    shape: ClipShape
    clips: list[Clip]
    digest: str
    """Changes whenever the shard's bytes would."""
    encoding_digest: str
    """Of the clip shape and the encoders; the same in every shard of a bucket."""


def plan_shards(
    clips: Iterable[Clip],
    shape: Callable[[Clip], ClipShape],
    settings: PlanSettings,
    encoding: object = None,
) -> list[ShardPlan]:
    """The shards of these clips, `shape` being that of each; `encoding` is whatever else their
    bytes depend on, as JSON.
    """
    unique = {clip.clip_id: clip for clip in clips}
    held_out = _held_out(families(unique.values()), settings)
    dealt: dict[tuple[str, str], list[tuple[Clip, ClipShape]]] = defaultdict(list)
    for clip in sorted(unique.values(), key=lambda one: _place(one.clip_id, settings.seed)):
        own = shape(clip)
        split = "val" if clip.source.digest in held_out else "train"
        dealt[split, bucket_name(own)].append((clip, own))
    plans = []
    for (split, bucket), mine in sorted(dealt.items()):
        own = mine[0][1]
        for first in range(0, len(mine), settings.samples_per_shard):
            some = [clip for clip, _ in mine[first : first + settings.samples_per_shard]]
            name = f"{bucket}/{split}-{first // settings.samples_per_shard:06d}"
            rest = [asdict(own), encoding]
            digest = storage.digest_json([name, [facts(clip, own) for clip in some], rest])
            encoded = storage.digest_json(rest)
            plans.append(ShardPlan(name, split, bucket, own, some, digest, encoded))
    return plans


def families(clips: Collection[Clip]) -> dict[str, set[str]]:
    """Digests of sources that share a group, also by way of others; by the least."""
    above: dict[str, str] = {}

    def top(name: str) -> str:
        while above.setdefault(name, name) != name:
            above[name] = name = above[above[name]]
        return name

    for clip in clips:
        for group in groups(clip):
            above[top(group)] = top(clip.source.digest)
    found: dict[str, set[str]] = defaultdict(set)
    for digest in {clip.source.digest for clip in clips}:
        found[top(digest)].add(digest)
    return {min(family): family for family in found.values()}


def _held_out(families: dict[str, set[str]], settings: PlanSettings) -> set[str]:
    """Each family by its own draw, so that it stays where it is when others come or go.

    At least one where there are two and a share is asked for; never all of them.
    """
    ordered = sorted(families, key=lambda one: _place(one, settings.seed))
    below = sum(_draw(one, settings.seed) < settings.val_fraction * 2**64 for one in ordered)
    if settings.val_fraction > 0 and families:
        below = min(max(1, below), len(families) - 1)
    return {digest for name in ordered[:below] for digest in families[name]}


def _place(text: str, seed: int) -> tuple[int, str]:
    return _draw(text, seed), text


def _draw(text: str, seed: int) -> int:
    return xxhash.xxh3_64_intdigest(text.encode(), seed=seed)
