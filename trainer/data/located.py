"""Where samples lie: their tar, and of each wanted array its bytes, digest and shape."""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from avdata.pipeline.shards.index import Member
from avdata.pipeline.shards.table import MEMBERS, Table


class Part(NamedTuple):
    """One wanted array of a sample; a tuple takes less than half as long to make as a frozen
    dataclass, and an epoch makes one for each array.
    """

    role: str
    offset: int
    length: int
    digest: int
    shape: tuple[int, ...]


class Located(NamedTuple):
    """One sample's wanted arrays, in the order in which they lie."""

    key: str
    tar: str
    parts: Sequence[Part]


_BY_OFFSET = attrgetter("offset")


def locate(table: Table, rows: Int64[ndarray, " some"], roles: Sequence[str]) -> list[Located]:
    """Of rows of the table."""
    found = table.rows[rows]
    columns = [MEMBERS.index(f"{role}.npy") for role in roles]
    shards = (np.searchsorted(table.first, rows, side="right") - 1).tolist()
    keys, places = found["key"].tolist(), found["places"][:, columns].tolist()
    samples = []
    for key, shard, some in zip(keys, shards, places, strict=True):
        parts = [
            Part(role, offset, length, digest, table.shapes[shape])
            for role, (offset, length, digest, shape) in zip(roles, some, strict=True)
        ]
        parts.sort(key=_BY_OFFSET)
        samples.append(Located(key.decode(), f"{table.shards[shard].name}.tar", parts))
    return samples


def locate_members(
    key: str, tar: str, members: Mapping[str, Member], roles: Sequence[str]
) -> Located:
    """Of a sample as its shard's index has it."""
    parts = []
    for role in roles:
        one = members[f"{role}.npy"]
        parts.append(Part(role, one.offset, one.length, int(one.digest, 16), tuple(one.shape)))
    parts.sort(key=_BY_OFFSET)
    return Located(key, tar, parts)
