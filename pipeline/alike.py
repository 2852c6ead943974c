"""Clips that mean the same: groups by embeddings, in buckets, without comparing all with all.

Spherical k-means (faiss) makes buckets as SemDeDup (arXiv 2303.09540) does; each clip goes into its
two nearest, so that near neighbours on either side of a border meet. Within a bucket every pair is
compared. The groups are the connected parts of all pairs over the threshold; memory goes with the
number of clips, however large a group is.
"""

import importlib
from types import ModuleType

import numpy as np
from jaxtyping import Float, Int64
from numpy import ndarray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from avdata.errors import UsageError

PER_BUCKET = 1_000
TRAINED_ON = 64
"""Embeddings a bucket that its centre is the mean of."""
ROUNDS = 10
NEAREST = 2
ROWS = 2_048
"""Of a bucket that are compared with as many others at once: what memory it takes."""


def alike(embeddings: Float[ndarray, "n d"], threshold: float) -> Int64[ndarray, " n"]:
    """For each the index of the first of its group, its own where it is alone.

    Embeddings are of unit norm, float16 will do; UsageError without faiss.
    """
    count = len(embeddings)
    if count < 2:
        return np.arange(count)
    links = [_links(embeddings, members, threshold) for members in _buckets(embeddings)]
    return _first(np.concatenate(links, axis=1), count)


def _buckets(embeddings: Float[ndarray, "n d"]) -> list[Int64[ndarray, " m"]]:
    count, width = embeddings.shape
    number = max(1, round(count / PER_BUCKET))
    if number < 2 * NEAREST:
        return [np.arange(count)]
    faiss = _faiss()
    drawn = np.random.default_rng(0).choice(count, min(count, TRAINED_ON * number), replace=False)
    means = faiss.Kmeans(width, number, niter=ROUNDS, spherical=True, seed=0)
    means.train(embeddings[np.sort(drawn)].astype(np.float32))
    near = np.empty((count, NEAREST), np.int64)
    for first in range(0, count, 65_536):
        some = embeddings[first : first + 65_536].astype(np.float32)
        near[first : first + 65_536] = means.index.search(some, NEAREST)[1]
    order = np.argsort(near.ravel(), kind="stable")
    cuts = np.searchsorted(near.ravel()[order], np.arange(1, number))
    return [part for part in np.split(order // NEAREST, cuts) if len(part) > 1]


def _links(
    embeddings: Float[ndarray, "n d"], members: Int64[ndarray, " m"], threshold: float
) -> Int64[ndarray, "2 p"]:
    """Of a bucket, each member that is not alone with the first of its group: no more than there
    are members, where pairs of a large group would be its square.
    """
    mine = embeddings[members].astype(np.float32)
    places = np.arange(len(members))
    first = places
    blocks = np.split(places, range(ROWS, len(members), ROWS))
    for k, rows in enumerate(blocks):
        found = [np.stack([places, first])]
        for columns in blocks[: k + 1]:
            near = np.stack(np.nonzero(mine[rows] @ mine[columns].T >= threshold))
            both = np.concatenate([rows, columns])
            near[1] += len(rows)
            found.append(np.stack([both, both[_first(near, len(both))]]))
        first = _first(np.concatenate(found, axis=1), len(members))
    grouped = first != places
    return np.stack([members[grouped], members[first[grouped]]])


def _first(links: Int64[ndarray, "2 p"], count: int) -> Int64[ndarray, " n"]:
    """For each of `count` the first of its connected part."""
    linked = coo_array((np.ones(links.shape[1], np.int8), tuple(links)), (count, count))
    _, group = connected_components(linked, directed=False)
    _, first = np.unique(group, return_index=True)
    found: Int64[ndarray, " n"] = first[group]
    return found


def _faiss() -> ModuleType:
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise UsageError(f"{error}; pip install 'avdata[alike]'") from error
