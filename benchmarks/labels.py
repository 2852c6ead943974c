"""How often the labels of speech and music are those given by ear, and what `sync` says.

    python benchmarks/labels.py MEDIA/MANIFEST.csv
    python benchmarks/labels.py --videos 42 --seed 777

MANIFEST.csv names videos beside it in `file` and has `y` or `n` in `speech` and `music`; a video
has what any of its clips has. Without it the lag of generated videos is read, whose sound is late
or early by up to 0.3 s. Speech needs the extra `speech`.
"""

import csv
import tempfile
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from avdata.errors import MediaError
from avdata.pipeline.measure.events import TRUSTED
from avdata.pipeline.measure.source import IngestConfig, measure_source
from avdata.pipeline.world.corpus import WorldConfig, generate, read_truth, truth_path
from avdata.pipeline.world.variants import VariantShares

FRAME_MS = 42.0


def main(
    manifest: Annotated[Path | None, typer.Argument(help="CSV of labelled real videos.")] = None,
    videos: Annotated[int, typer.Option(min=1, help="Generated ones.")] = 42,
    seed: Annotated[int, typer.Option(min=0)] = 777,
    max_seconds: Annotated[float, typer.Option(help="Longer real ones are left out.")] = 60.0,
) -> None:
    """Prints what differs, then the sums."""
    if manifest is None:
        _generated(videos, seed)
    else:
        _labelled(manifest, max_seconds)


def _labelled(manifest: Path, max_seconds: float) -> None:
    counts: dict[str, Counter[tuple[bool, bool]]] = {"speech": Counter(), "music": Counter()}
    confidences: list[float] = []
    for row in csv.DictReader(manifest.open()):
        if row["split"] != "train" or float(row["duration_container_s"] or 0) > max_seconds:
            continue
        try:
            clips = measure_source(manifest.parent / row["file"], row["file"], IngestConfig())
        except MediaError:
            continue
        confidences += [clip.sync.confidence for clip in clips[:1] if clip.sync is not None]
        for name, counted in counts.items():
            found = [getattr(clip.labels, name) for clip in clips]
            if all(one is None for one in found) or row[name] not in ("y", "n"):
                continue
            wanted, has = row[name] == "y", any(found)
            counted[wanted, has] += 1
            if wanted != has:
                typer.echo(f"{row['file']}: {name} {row[name]} by ear")
    for name, counted in counts.items():
        hits, others = counted[True, True], counted[False, False]
        typer.echo(
            f"{name}: {hits + others} of {counted.total()} agree; "
            f"{counted[True, False]} missed, {counted[False, True]} false"
        )
    trusted = sum(one >= TRUSTED for one in confidences)
    typer.echo(
        f"sync: {len(confidences)} videos have one, {trusted} to be trusted, "
        f"the surest has {max(confidences, default=0.0):.2f}"
    )


def _generated(videos: int, seed: int) -> None:
    wanted = WorldConfig(num_videos=videos, seed=seed, variants=VariantShares(lag=1.0))
    trusted = near = 0
    with tempfile.TemporaryDirectory() as folder:
        for path in generate(Path(folder), wanted):
            sync = measure_source(path, path.name, IngestConfig())[0].sync
            if sync is not None and sync.confidence >= TRUSTED:
                late = read_truth(truth_path(path)).sound_lag_ms or 0.0
                trusted, near = trusted + 1, near + (abs(sync.lag_ms - late) <= FRAME_MS)
    typer.echo(f"sync: {trusted} of {videos} to be trusted, {near} of these within {FRAME_MS} ms")


if __name__ == "__main__":
    typer.run(main)
