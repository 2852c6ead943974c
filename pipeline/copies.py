"""Clips of different sources with the same fingerprints, found without comparing all with all.

Prints that agree in enough bits fall into one bucket and vote for how far two sources are apart in
time; the winner says which of their clips to compare, print by print. Within a bucket only
neighbours are paired, in order of their time in the source, and of many partners of a source only
those with most votes are compared: so the work grows with the number of clips however alike they
are, and not every pair is found, but enough that all of one origin hang together. Two sources are
compared at one distance only: of material that was cut and joined anew, the longest agreeing part
is found.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int32, Int64, UInt64
from numpy import ndarray

from avdata.pipeline.media.spool import IN_MEMORY_BYTES, Spool

NEIGHBOURS = 8
"""Entries of a bucket that each is paired with."""
MIN_VOTES = 2
PARTNERS = 32
"""Sources that each is compared with; a pair counts for whichever of the two has fewer."""
TICK_BITS = 22
"""More instants than any source has."""
PAIRS_AT_ONCE = 50_000
PRINTS_AT_ONCE = 2_000_000
MIN_OVERLAP = 0.55
"""Share of the shorter clip; over a half, so that no clip is a copy of two that follow each other.
"""


@dataclass(frozen=True, slots=True)
class Prints:
    """Fingerprints of all clips, clips in order of source and start."""

    source: Int64[ndarray, " clips"]
    """Number of the source; clips of one source are never compared."""
    first: Int64[ndarray, " clips"]
    """Instant of each clip's first print on the source's grid."""
    values: UInt64[ndarray, "clips width"]
    """Zero beyond a clip's last."""
    count: Int64[ndarray, " clips"]


Keys = Callable[[UInt64[ndarray, " n"]], Iterator[UInt64[ndarray, " n"]]]
"""Keys of under 42 bits, several a print, 0 for none: prints alike should share some of them."""
Alike = Callable[
    [UInt64[ndarray, "n width"], UInt64[ndarray, "n width"], Bool[ndarray, "n width"]],
    Bool[ndarray, " n"],
]
"""Whether rows of prints laid side by side are of one origin, where the mask is true."""


def copies(prints: Prints, keys: Keys, alike: Alike) -> Int64[ndarray, "pairs 2"]:
    """Pairs of clips with the same content, each once, in order."""
    left, right, apart = _candidates(prints, *_distances(prints, keys))
    found = [np.zeros((0, 2), np.int64)]
    for low in range(0, len(left), PAIRS_AT_ONCE):
        some = slice(low, low + PAIRS_AT_ONCE)
        same = np.zeros(len(left[some]), bool)
        for nudge in (-1, 0, 1):  # The true distance lies between two instants.
            same |= _agree(prints, left[some], right[some], apart[some] + nudge, alike)
        found.append(np.stack([left[some][same], right[some][same]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def same_clips(
    prints: Prints, left: Int64[ndarray, " n"], right: Int64[ndarray, " n"], alike: Alike
) -> Bool[ndarray, " n"]:
    """Whether these pairs of clips have the same content, however their clocks are apart."""
    same = np.zeros(len(left), bool)
    for low in range(0, len(left), PAIRS_AT_ONCE):
        some = np.arange(low, min(low + PAIRS_AT_ONCE, len(left)))
        some = some[prints.source[left[some]] != prints.source[right[some]]]
        level = prints.first[left] - prints.first[right]
        for shift in _shifts(prints.count[left[some]], prints.count[right[some]]):
            found = _agree(prints, left[some], right[some], level[some] - shift, alike)
            same[some[found]] = True
            some = some[~found]
    return same


def _shifts(left: Int64[ndarray, " n"], right: Int64[ndarray, " n"]) -> Iterator[int]:
    """By which clips of so many prints can be moved and still overlap enough, nearest first."""
    longer, shorter = np.maximum(left, right), np.minimum(left, right)
    farthest = int((longer - MIN_OVERLAP * shorter).max(initial=-1))
    yield from sorted(range(-farthest, farthest + 1), key=abs)


def _distances(
    prints: Prints, keys: Keys
) -> tuple[Int64[ndarray, " p"], Int64[ndarray, " p"], Int64[ndarray, " p"]]:
    """Pairs of sources and by how many instants the first's clock is ahead of the second's.

    Buckets are looked at some at a time, and the votes, of which most are chance, are counted for
    some of the pairs at a time: until then they lie on disk.
    """
    clip, position = np.nonzero(prints.values)
    values = prints.values[clip, position]
    source = prints.source[clip].astype(np.int32)
    tick = (prints.first[clip] + position).astype(np.int32)
    del clip, position
    num_sources = max(int(prints.source.max(initial=0)) + 1, 1)
    parts = 1 + len(values) // PRINTS_AT_ONCE
    votes = [Spool(np.int64, (2,), IN_MEMORY_BYTES // parts) for _ in range(parts)]
    for key in keys(values):
        for part in range(parts):
            used = np.flatnonzero((key != 0) & (key % np.uint64(parts) == part))
            for left, right in _neighbours(key[used], source[used], tick[used]):
                one, other = used[left], used[right]
                between = source[one].astype(np.int64) * num_sources + source[other]
                cast = np.stack([between, tick[one] - tick[other] + (1 << TICK_BITS - 1)], axis=1)
                for into in range(parts):
                    votes[into].append(cast[between % parts == into])
    counted = [_counted(some[:]) for some in votes]
    between, ahead, strength = (np.concatenate(some) for some in zip(*counted, strict=True))
    order = np.argsort(between)
    one, other = between[order] // num_sources, between[order] % num_sources
    some = _strongest(one, other, strength[order])
    return one[some], other[some], ahead[order][some]


def _neighbours(
    key: UInt64[ndarray, " n"], source: Int32[ndarray, " n"], tick: Int32[ndarray, " n"]
) -> Iterator[tuple[Int64[ndarray, " hits"], Int64[ndarray, " hits"]]]:
    """Pairs of entries of one key and two sources, that of the lower source first."""
    # Stable, so that all machines pair the same of those that are alike in all.
    order = np.argsort(key << TICK_BITS | tick.astype(np.uint64), kind="stable")
    shared = np.zeros(len(order) + 1, bool)
    shared[1:-1] = np.diff(key[order]) == 0
    order = order[shared[:-1] | shared[1:]]
    for gap in range(1, NEIGHBOURS + 1):
        one, other = order[:-gap], order[gap:]
        hit = (key[one] == key[other]) & (source[one] != source[other])
        one, other = one[hit], other[hit]
        swap = source[one] > source[other]
        yield np.where(swap, other, one), np.where(swap, one, other)


def _counted(
    votes: Int64[ndarray, "v 2"],
) -> tuple[Int64[ndarray, " p"], Int64[ndarray, " p"], Int64[ndarray, " p"]]:
    """Pairs with votes enough, the distance of each, and how many votes that has."""
    # Numbered as they occur: together with the distance, all that could be would not fit 64 bits.
    pairs, number = np.unique(votes[:, 0], return_inverse=True)
    pair, ahead, strength = _winners(number.astype(np.int64) << TICK_BITS | votes[:, 1])
    return pairs[pair], ahead, strength


def _winners(
    votes: Int64[ndarray, " v"],
) -> tuple[Int64[ndarray, " p"], Int64[ndarray, " p"], Int64[ndarray, " p"]]:
    """Pairs, the distance of each with most votes, those for the instants beside it included, and
    their number.
    """
    ballot, count = np.unique(votes, return_counts=True)
    beside = np.flatnonzero(np.diff(ballot) == 1)
    total = count.copy()
    total[beside] += count[beside + 1]
    total[beside + 1] += count[beside]
    pair = ballot >> TICK_BITS
    order = np.lexsort((ballot, -count, -total, pair))
    is_first = np.diff(pair[order], prepend=-1) != 0
    best = order[is_first]
    best = best[total[best] >= MIN_VOTES]
    ahead = (ballot[best] & ((1 << TICK_BITS) - 1)) - (1 << TICK_BITS - 1)
    return pair[best], ahead, total[best]


def _strongest(
    one: Int64[ndarray, " p"], other: Int64[ndarray, " p"], strength: Int64[ndarray, " p"]
) -> Int64[ndarray, " q"]:
    """Of the pairs those that are among the `PARTNERS` strongest of either source."""
    source, pair = np.concatenate([one, other]), np.tile(np.arange(len(one)), 2)
    order = np.lexsort((pair, -strength[pair], source))
    starts = np.flatnonzero(np.diff(source[order], prepend=-1))
    sizes = np.diff(starts, append=len(order))
    place = np.arange(len(order)) - np.repeat(starts, sizes)
    return np.unique(pair[order][place < PARTNERS])


def _candidates(
    prints: Prints,
    one: Int64[ndarray, " p"],
    other: Int64[ndarray, " p"],
    ahead: Int64[ndarray, " p"],
) -> tuple[Int64[ndarray, " c"], Int64[ndarray, " c"], Int64[ndarray, " c"]]:
    """Clips of the first source beside the clips of the second that lie nearest in time."""
    low = np.searchsorted(prints.source, one, side="left")
    many = np.searchsorted(prints.source, one, side="right") - low
    of = np.repeat(np.arange(len(one)), many)
    left = low[of] + np.arange(len(of)) - np.repeat(np.cumsum(many) - many, many)
    place = prints.source << TICK_BITS + 1 | prints.first + (1 << TICK_BITS)
    wanted = prints.first[left] - ahead[of] + (1 << TICK_BITS)
    after = np.searchsorted(place, other[of] << TICK_BITS + 1 | wanted)
    right = np.concatenate([after - 1, after]).clip(0, len(place) - 1)
    left, of = np.tile(left, 2), np.tile(of, 2)
    real = prints.source[right] == other[of]
    return left[real], right[real], ahead[of][real]


def _agree(
    prints: Prints,
    left: Int64[ndarray, " n"],
    right: Int64[ndarray, " n"],
    apart: Int64[ndarray, " n"],
    alike: Alike,
) -> Bool[ndarray, " n"]:
    at = np.arange(prints.values.shape[1])
    shifted = at + (prints.first[left] - apart - prints.first[right])[:, None]
    inside = (
        (at < prints.count[left, None]) & (shifted >= 0) & (shifted < prints.count[right, None])
    )
    other = prints.values[right[:, None], shifted.clip(0, len(at) - 1)]
    shorter = np.minimum(prints.count[left], prints.count[right])
    enough: Float[ndarray, " n"] = inside.sum(axis=1) / np.maximum(shorter, 1)
    return (enough >= MIN_OVERLAP) & alike(prints.values[left], other, inside)
