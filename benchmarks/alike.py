"""Zero-shot tags, agreement of picture and sound, and clips that mean the same, at a million
embeddings: time, memory, recall.

    python benchmarks/alike.py --count 1000000 --width 512

First --group embeddings that are all alike, so one group. Then embeddings are drawn around cluster
centres; one in ten is a copy of another with noise. The time of comparing all with all is estimated
from a part of it.
"""

import argparse
import resource
import sys
import time

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from avdata.pipeline.alike import alike
from avdata.pipeline.semantics import agreement, chances, nearest

THRESHOLD = 0.95
BLOCK = 50_000


def unit(rows: Float32[ndarray, "n d"]) -> Float32[ndarray, "n d"]:
    """In place."""
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def drawn(count: int, width: int) -> tuple[Float32[ndarray, "n d"], Float32[ndarray, " p"]]:
    """Embeddings as float16, the last tenth copies; and of which each is a copy."""
    g = np.random.default_rng(0)
    centres = g.standard_normal((2_000, width), np.float32)
    own = count - count // 10
    rows = np.empty((count, width), np.float16)
    for first in range(0, own, BLOCK):
        size = min(BLOCK, own - first)
        some = centres[g.integers(0, len(centres), size)]
        rows[first : first + size] = unit(some + g.standard_normal((size, width), np.float32))
    source = g.integers(0, own, count - own)
    for first in range(0, count - own, BLOCK):
        of = source[first : first + BLOCK]
        noise = 0.15 * unit(g.standard_normal((len(of), width), np.float32))
        rows[own + first : own + first + len(of)] = unit(rows[of].astype(np.float32) + noise)
    return rows, source


def one_group(count: int, width: int) -> None:
    """Time and memory of a group that all belong to, before anything else takes memory."""
    g = np.random.default_rng(2)
    rows = g.standard_normal(width) + 0.05 * g.standard_normal((count, width))
    given = unit(rows.astype(np.float32)).astype(np.float16)
    before = peak_gib()
    began = time.perf_counter()
    first = alike(given, THRESHOLD)
    took, groups = time.perf_counter() - began, len(np.unique(first))
    sys.stdout.write(f"{count} that are alike: {groups} group in {took:.0f} s" + "\n")
    sys.stdout.write(f"peak memory {peak_gib():.2f} GiB, before {before:.2f}" + "\n")


def peak_gib() -> float:
    """Of this process until now."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--group", type=int, default=9_000)
    given = parser.parse_args()
    one_group(given.group, given.width)
    rows, source = drawn(given.count, given.width)
    gib = rows.nbytes / 2**30
    sys.stdout.write(f"{given.count} embeddings of {given.width}, float16: {gib:.2f} GiB" + "\n")
    some = rows[:2_048].astype(np.float32)
    began = time.perf_counter()
    for begin in range(0, min(given.count, 20 * BLOCK // 10), BLOCK // 10):
        (some @ rows[begin : begin + BLOCK // 10].astype(np.float32).T >= THRESHOLD).sum()
    part = 2_048 * min(given.count, 20 * BLOCK // 10) / given.count**2 * 2
    whole = (time.perf_counter() - began) / part
    before = peak_gib()
    began = time.perf_counter()
    first = alike(rows, THRESHOLD)
    took = time.perf_counter() - began
    peak = peak_gib()
    own = given.count - len(source)
    found = (first[own:] == first[source]).mean()
    wrong = (first[:own] != np.arange(own)).mean()
    sys.stdout.write(
        f"alike: {took:.0f} s, all with all about {whole:.0f} s, {whole / took:.1f} times" + "\n"
    )
    sys.stdout.write(f"peak memory {peak:.2f} GiB, before {before:.2f}" + "\n")
    sys.stdout.write(f"copies found {found:.4f}, others grouped {wrong:.6f}" + "\n")
    names = tuple(str(k) for k in range(309))
    classes = unit(np.random.default_rng(1).standard_normal((309, given.width), np.float32))
    began = time.perf_counter()
    tags = nearest(rows.astype(np.float32), classes, names, 3)
    sys.stdout.write(f"tags: {len(tags)} in {time.perf_counter() - began:.0f} s" + "\n")
    began = time.perf_counter()
    for begin in range(0, given.count, BLOCK):
        some = rows[begin : begin + BLOCK].astype(np.float32)
        agreement(chances(some, classes, 100.0), chances(some[::-1], classes, 20.0))
    sys.stdout.write(f"agreement: {time.perf_counter() - began:.0f} s" + "\n")
    sys.stdout.write(f"peak memory of all {peak_gib():.2f} GiB" + "\n")


if __name__ == "__main__":
    main()
