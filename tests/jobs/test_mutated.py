"""Damaged media: bits flipped, pieces cut out, ends cut off. Every file is accounted for."""

import os
import random
import sys
from collections import Counter
from pathlib import Path

import pytest

from avdata.jobs.engine import Engine
from avdata.jobs.ingest import ingest
from avdata.pipeline.measure.source import IngestConfig
from avdata.pipeline.media.limits import MediaLimits
from tests.pipeline.media import Sound, bouncing_ball, clicks, times_at, write_movie

DEADLINE_S = 60
CONFIG = IngestConfig(num_frames=17, limits=MediaLimits(deadline_s=DEADLINE_S, memory_gib=6))
MAX_BYTES = 500_000
"""Larger real files would spend the time on decoding."""


def originals(folder: Path) -> list[Path]:
    """One small film in each container, and real ones where there are any."""
    pictures = bouncing_ball()
    films = [
        write_movie(
            folder / f"film.{suffix}",
            pictures,
            times_at(24, len(pictures)),
            Sound(clicks([0.75, 1.5], 2.5)),
        )
        for suffix in ("mp4", "mkv", "ts")
    ]
    real = os.environ.get("AVDATA_REAL_MEDIA")
    found = sorted(Path(real, "train").iterdir()) if real else []
    return films + [path for path in found if path.is_file() and path.stat().st_size < MAX_BYTES]


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Some of the bytes."""
    changed = bytearray(data)
    kind = chance.choice(("bits", "header", "cut", "hole", "swap"))
    if kind == "cut":
        return bytes(changed[: chance.randrange(1, len(changed))])
    if kind == "hole":
        at = chance.randrange(len(changed))
        return bytes(changed[:at] + changed[at + chance.randrange(1, 5000) :])
    if kind == "swap":
        at, size = chance.randrange(len(changed)), chance.randrange(1, 2000)
        changed[at : at + size] = chance.randbytes(size)
        return bytes(changed)
    reach = min(4096, len(changed)) if kind == "header" else len(changed)
    for _ in range(chance.choice((1, 8, 64))):
        changed[chance.randrange(reach)] ^= 1 << chance.randrange(8)
    return bytes(changed)


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("count", [8, pytest.param(520, marks=pytest.mark.slow)])
def test_damaged_files_give_clips_or_a_reason_and_stop_nothing(tmp_path: Path, count: int) -> None:
    chance, raw = random.Random(count), tmp_path / "raw"
    raw.mkdir()
    (tmp_path / "films").mkdir()
    whole = originals(tmp_path / "films")
    for number in range(count):
        film = whole[number % len(whole)]
        target = raw / f"{number:03d}{film.suffix}"
        target.write_bytes(damaged(film.read_bytes(), chance))
    for number, film in enumerate(whole[:2]):
        (raw / f"whole{number}{film.suffix}").write_bytes(film.read_bytes())
    manifest = ingest([raw], tmp_path / "m", CONFIG, engine=Engine(workers=2))
    named = {Path(uri).name for clip in manifest.clips() for uri in clip.source.uris}
    refused = {Path(row.uri).name: row.reason for row in manifest.quarantined()}
    assert named | set(refused) == {path.name for path in raw.iterdir()}
    assert not named & set(refused)
    assert {"whole0.mp4", "whole1.mkv"} <= named
    assert "took_too_long" not in refused.values()
    sys.stderr.write(f"clips from {len(named)}; {Counter(refused.values()).most_common()}\n")
