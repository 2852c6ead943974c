"""What measuring costs beside decoding, in CPU time, on one thread.

    python benchmarks/ingest_cost.py MEDIA... [--runs 3]

Decoding is demuxing and decoding every frame and all sound of the streams that ingest reads,
without scaling. Measuring is all of `measure_source`: decoding, scaling, shots, motion, sound,
contacts, clips. Both in this process with one decoder thread and OpenCV on one thread.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2

from avdata.errors import MediaError
from avdata.pipeline.measure.source import IngestConfig, measure_source
from avdata.pipeline.media.decode import decoded
from avdata.pipeline.media.stream import opened


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("media", nargs="+", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    _measure(given.media[0])  # Imports and tables are made once, not for each source.
    totals: list[tuple[float, float]] = []
    lines = ["| file | decode, CPU s | measure, CPU s | ratio |", "|---|---|---|---|"]
    times = {path: [(0.0, 0.0)] * given.runs for path in given.media}
    for run in range(given.runs):
        for path in given.media:
            times[path][run] = _seconds(_decode, path), _seconds(_measure, path)
        found = [times[path][run] for path in given.media]
        totals.append((sum(one for one, _ in found), sum(other for _, other in found)))
    for path in given.media:
        decode, measure = (statistics.median(part) for part in zip(*times[path], strict=True))
        lines.append(f"| {path.name} | {decode:.2f} | {measure:.2f} | {measure / decode:.2f} |")
    ratios = sorted(measure / decode for decode, measure in totals)
    decode, measure = (statistics.median(part) for part in zip(*totals, strict=True))
    lines.append(
        f"| all, median of {given.runs} runs | {decode:.2f} | {measure:.2f} "
        f"| {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |"
    )
    sys.stdout.write("\n".join(lines) + "\n")


def _seconds(work: Callable[[Path], None], path: Path) -> float:
    begin = time.process_time()
    work(path)
    return time.process_time() - begin


def _decode(path: Path) -> None:
    with opened(path, threads=1) as container:
        video = container.streams.best("video")
        audio = container.streams.best("audio", related=video)
        streams = [
            one for one in (video, audio) if isinstance(one, av.VideoStream | av.AudioStream)
        ]
        for _ in decoded(container, streams, lambda: None):
            pass


def _measure(path: Path) -> None:
    try:
        measure_source(path, str(path), IngestConfig())
    except MediaError as error:
        sys.stderr.write(f"{path.name}: {error}\n")


if __name__ == "__main__":
    main()
