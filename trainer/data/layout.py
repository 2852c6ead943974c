"""Where the bytes of a sample go: straight into its seat of a batch, and next to it what is only
checked.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avdata.errors import CorruptShard
from avdata.trainer.data.located import Located, Part

TEXTS = ("video_text", "audio_text")
ITEM = 2
"""Bytes of a float16."""
LARGEST_HEADER = 4096
LARGEST_GAP = 1 << 16
"""Bytes of members that nobody wants, up to which one range is read and not two."""


class Place(NamedTuple):
    """Where the arrays of one role go: those of all samples of a batch, one after the other."""

    memory: memoryview
    """Their bytes."""
    size: int
    """Of one of them."""
    shape: tuple[int, ...]
    """Latents as they are, text (longest d)."""


Places = Mapping[str, Place]
"""By role."""


def places_of(arrays: Mapping[str, NDArray[np.float16]]) -> Places:
    """Of contiguous arrays (b ...)."""
    return {
        role: Place(array.view(np.uint8).reshape(-1).data, array[0].nbytes, array.shape[1:])
        for role, array in arrays.items()
    }


Range = tuple[int, list[memoryview]]
"""An offset in a tar, and where the bytes from there on go."""
Check = tuple[Part, list[memoryview]]
"""A member and the pieces that have its bytes, its header first."""


class Laid(NamedTuple):
    """A sample, and where its bytes go."""

    sample: Located
    ranges: Sequence[Range]
    checks: Sequence[Check]
    blanks: Sequence[memoryview]
    """What becomes zero: the rest of the places of short texts."""
    lengths: Mapping[str, int]
    """Tokens of each text."""
    num_bytes: int
    error: CorruptShard | None
    """Why it cannot go there."""


def laid_out(sample: Located, places: Places, seat: int) -> Laid:
    """For a seat of a batch. Made for a whole batch in one go, so that what threads do between two
    reads, for which they wait for each other, is little.
    """
    try:
        return _laid_out(sample, places, seat)
    except CorruptShard as error:
        return Laid(sample, (), (), (), {}, 0, error)


def _laid_out(sample: Located, places: Places, seat: int) -> Laid:
    lengths: dict[str, int] = {}
    checks: list[Check] = []
    ranges: list[Range] = []
    blanks: list[memoryview] = []
    end, num_bytes = -LARGEST_GAP - 1, 0
    for part in sample.parts:
        role, offset, length, _, shape = part
        memory, size, wanted = places[role]
        room = memory[seat * size : (seat + 1) * size]
        if shape != wanted:
            size = _size(sample, part, wanted)
            blanks.append(room[size:])
            room = room[:size]
        if role in TEXTS:
            lengths[role] = min(shape[0], wanted[0])
        header = length - size
        if not 0 < header <= LARGEST_HEADER:
            raise CorruptShard(
                f"{sample.tar}: {sample.key}.{role}.npy has {length} bytes for {shape}"
            )
        pieces = [_unwanted(header), room]
        if size > len(room):
            pieces.append(_unwanted(size - len(room)))
        if not 0 <= offset - end <= LARGEST_GAP:
            ranges.append((offset, []))
        elif offset > end:
            ranges[-1][1].append(_unwanted(offset - end))
        ranges[-1][1].extend(pieces)
        checks.append((part, pieces))
        end, num_bytes = offset + length, num_bytes + length
    return Laid(sample, ranges, checks, blanks, lengths, num_bytes, None)


def _size(sample: Located, part: Part, wanted: tuple[int, ...]) -> int:
    """Bytes of a text of other length than its place; CorruptShard for any other difference."""
    if part.role not in TEXTS or part.shape[1:] != wanted[1:]:
        raise CorruptShard(
            f"{sample.tar}: {sample.key}.{part.role}.npy has shape {part.shape}, the others of its "
            f"bucket {wanted}"
        )
    return ITEM * math.prod(part.shape)


def _unwanted(size: int) -> memoryview:
    """Memory for bytes that are only checked, or not even that. Of large ones none is used before
    they come, as it would be where it is made zero; small ones are made faster like that.
    """
    if size <= LARGEST_HEADER:
        return memoryview(bytearray(size))
    return np.empty(size, np.uint8).data
