"""Clips that mean the same: groups by embeddings, in buckets, without comparing all with all.

Spherical k-means (faiss) makes buckets as SemDeDup (arXiv 2303.09540) does; each clip goes into its
two nearest, so that near neighbours on either side of a border meet. Within a bucket every pair is
compared. The groups are the connected parts of all pairs over the threshold.
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
ROWS = 4_096
"""Of a bucket against all of it at once, so that one that holds most of a corpus fits, too."""


def alike(embeddings: Float[ndarray, "n d"], threshold: float) -> Int64[ndarray, " n"]:
    """For each the index of the first of its group, its own where it is alone.

    Embeddings are of unit norm, float16 will do; UsageError without faiss.
    """
    count = len(embeddings)
    if count < 2:
        return np.arange(count)
    pairs = [_pairs(embeddings, members, threshold) for members in _buckets(embeddings)]
    one, other = np.concatenate(pairs, axis=1)
    linked = coo_array((np.ones(len(one), np.int8), (one, other)), (count, count))
    _, group = connected_components(linked, directed=False)
    _, first = np.unique(group, return_index=True)
    found: Int64[ndarray, " n"] = first[group]
    return found


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


def _pairs(
    embeddings: Float[ndarray, "n d"], members: Int64[ndarray, " m"], threshold: float
) -> Int64[ndarray, "2 p"]:
    """Each pair once."""
    mine = embeddings[members].astype(np.float32)
    found = []
    for first in range(0, len(members), ROWS):
        near = mine[first : first + ROWS] @ mine[: first + ROWS].T >= threshold
        rows, columns = np.nonzero(near)
        keep = rows + first > columns
        found.append(np.stack([members[rows[keep] + first], members[columns[keep]]]))
    return np.concatenate(found, axis=1)


def _faiss() -> ModuleType:
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise UsageError(f"{error}; pip install 'avdata[alike]'") from error
