"""How often the label of motion is the one given by eye.

    python benchmarks/motion.py MEDIA/MANIFEST.csv

MANIFEST.csv names videos beside it in `file` and their motion (static, small, large) in `motion`. A
video's label is the median of its clips', the upper where there are two; one too short for a clip
is measured as a whole.
"""

import csv
from collections import Counter
from pathlib import Path

import typer

from avdata.errors import MediaError
from avdata.pipeline.measure.source import IngestConfig, measure_source

LABELS = ("static", "small", "large")
SHORT = IngestConfig(num_frames=5, fps=60)
"""A clip of a twelfth of a second."""


def main(manifest: Path, max_seconds: float = 120.0) -> None:
    """Prints what differs, then the share that agrees."""
    seen, agree = 0, 0
    for row in csv.DictReader(manifest.open()):
        wanted, path = row["motion"], manifest.parent / row["file"]
        if wanted not in LABELS or float(row["duration_container_s"] or 0) > max_seconds:
            continue
        labels = sorted(_labels(path), key=LABELS.index)
        if not labels:
            continue
        found = labels[len(labels) // 2]
        seen, agree = seen + 1, agree + (found == wanted)
        if found != wanted:
            typer.echo(f"{path.name}: {wanted} by eye, clips {dict(Counter(labels))}")
    typer.echo(f"{agree} of {seen} agree, {agree / max(1, seen):.2f}")


def _labels(path: Path) -> list[str]:
    for config in (IngestConfig(), SHORT):
        try:
            return [clip.labels.motion for clip in measure_source(path, path.name, config)]
        except MediaError:
            continue
    return []


if __name__ == "__main__":
    typer.run(main)
