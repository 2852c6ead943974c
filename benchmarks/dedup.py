"""How long finding duplicates takes: a made-up manifest, some of its sources copied with errors.

    python benchmarks/dedup.py [--clips 100000] [--copied 0.2] [--copies 1 9 99 999]

Prints are random with the persistence of real ones; copies start 0.3 s later and have 3 % of the
picture's and 10 % of the sound's bits wrong. For each number of copies that a copied source has,
printed: seconds of CPU, and the copies that are not in the group of their original.
"""

import argparse
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import UInt64
from numpy import ndarray

from avdata.pipeline.arrow import arrow_schema
from avdata.pipeline.dedup import with_duplicates
from avdata.pipeline.record import Clip

CLIPS_PER_SOURCE = 10
CLIP_SECONDS = 2.0625
STEPS_S = {"picture": 0.25, "sound": 256 * 8 / 44_100}
WRONG = {"picture": 0.03, "sound": 0.1}
SHIFT_S = 0.3


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=int, default=100_000)
    parser.add_argument("--copied", type=float, default=0.2, help="Share of the sources.")
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 9, 99, 999])
    given = parser.parse_args()
    for copies in given.copies:
        table = made_up(given.clips // CLIPS_PER_SOURCE, given.copied, copies)
        before = time.process_time()
        found = with_duplicates(table)
        seconds = time.process_time() - before
        names = zip(
            found["clip_id"].to_pylist(),
            pc.struct_field(found["duplicates"], "copy_group").to_pylist(),
            strict=True,
        )
        # The digest of a copy's source ends with its number.
        planted = [(one, group) for one, group in names if int(one[-6:-2]) > 0]
        wrong = sum(group != f"{one[:-6]}0000{one[-2:]}" for one, group in planted)
        sys.stdout.write(
            f"{len(table)} clips, {len(planted)} of them copies, {copies} of each: "
            f"{seconds:.1f} s; not with their original: {wrong}\n"
        )


def made_up(num_sources: int, copied: float, copies: int) -> pa.Table:
    """A manifest with only what deduplication reads; the first sources have so many copies."""
    rng, num_families = np.random.default_rng(0), max(1, round(num_sources * copied / (copies + 1)))
    rows = []
    for number in range(num_sources - num_families * copies):
        tracks = {kind: _track(rng, kind) for kind in STEPS_S}
        rows += _clips(f"{number:09d}{0:04d}", tracks, 2000)
        for copy in range(1, 1 + copies if number < num_families else 1):
            late = {kind: _copy(rng, kind, track) for kind, track in tracks.items()}
            rows += _clips(f"{number:09d}{copy:04d}", late, 1000)
    schema = arrow_schema(Clip)
    names = ("clip_id", "source", "start_s", "media", "fingerprint", "duplicates")
    return pa.Table.from_pylist(rows, schema=pa.schema([schema.field(name) for name in names]))


def _track(rng: np.random.Generator, kind: str) -> UInt64[ndarray, " n"]:
    """Prints of a whole source; each differs from the one before in a sixth of its bits."""
    count = round((CLIPS_PER_SOURCE * CLIP_SECONDS + 1) / STEPS_S[kind])
    width = 64 if kind == "picture" else 32
    flips = _bits(rng, count, width, 1 / 6)
    flips[0] = rng.integers(1, 1 << (width - 1), dtype=np.uint64)
    return np.bitwise_xor.accumulate(flips)


def _copy(
    rng: np.random.Generator, kind: str, track: UInt64[ndarray, " n"]
) -> UInt64[ndarray, " n"]:
    width = 64 if kind == "picture" else 32
    shifted = track[round(SHIFT_S / STEPS_S[kind]) :]
    copy: UInt64[ndarray, " m"] = shifted ^ _bits(rng, len(shifted), width, WRONG[kind])
    return copy


def _bits(rng: np.random.Generator, count: int, width: int, share: float) -> UInt64[ndarray, " n"]:
    set_bits = rng.random((count, width)) < share
    places: UInt64[ndarray, " width"] = np.uint64(1) << np.arange(width, dtype=np.uint64)
    return np.asarray((set_bits * places).sum(axis=1, dtype=np.uint64))


def _clips(
    digest: str, tracks: dict[str, UInt64[ndarray, " n"]], size: int
) -> list[dict[str, object]]:
    source = {"uri": digest, "uris": [digest], "digest": digest, "size_bytes": size}
    media = {"width": 640, "height": 360, "duration_s": CLIPS_PER_SOURCE * CLIP_SECONDS}
    rows: list[dict[str, object]] = []
    for number in range(CLIPS_PER_SOURCE):
        start = number * CLIP_SECONDS
        prints = {kind: _span(track, kind, start) for kind, track in tracks.items()}
        rows.append(
            {
                "clip_id": f"{digest}{number:02d}",
                "source": source,
                "start_s": start,
                "media": media,
                "fingerprint": {
                    kind: each.view(np.int64).tolist() for kind, each in prints.items()
                },
                "duplicates": None,
            }
        )
    return rows


def _span(track: UInt64[ndarray, " n"], kind: str, start: float) -> UInt64[ndarray, " m"]:
    # The middle of a sound's window is half of 0.37 s after its first sample.
    offset = 0.0 if kind == "picture" else 1024 * 8 / 44_100
    first, last = (
        max(0, int(np.ceil((at - offset) / STEPS_S[kind] - 1e-6)))
        for at in (start, start + CLIP_SECONDS)
    )
    return track[first:last]


if __name__ == "__main__":
    main()
