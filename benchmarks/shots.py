"""How well shots are found: precision, recall and F1 on generated edits, counts on real clips.

    python benchmarks/shots.py [--videos 24] [--media FOLDER_WITH_MANIFEST_CSV]

Generated videos have cuts, fades through black and dissolves in equal shares, and flashes and
strobes that are none; they are coded as H.264 and decoded as ingest does it. A found transition
is right when its middle lies within the true one, or 0.1 s of it, and each counts once. Real clips
have hand counts (`n_shots`); those of up to ten shots shall be right within one.
"""

import argparse
import csv
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from avdata.pipeline.measure.dissolves import Transition
from avdata.pipeline.measure.shots import ShotFinder, shots
from avdata.pipeline.media.limits import MediaLimits
from avdata.pipeline.media.stream import SourceStream, opened
from avdata.pipeline.media.write import write_mp4
from avdata.pipeline.world.edits import JOINS, Edit, edited
from avdata.progress import progress

FPS = 24
TOLERANCE_S = 0.1


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--videos", type=int, default=24)
    parser.add_argument("--media", type=Path, help="Folder of clips with a MANIFEST.csv.")
    given = parser.parse_args()
    sys.stdout.write(_generated(given.videos))
    if given.media is not None:
        sys.stdout.write(_real(given.media))


def _generated(count: int) -> str:
    edits, hits, num_found = Counter[str](), Counter[str](), 0
    with tempfile.TemporaryDirectory() as folder, progress("generated", count) as advance:
        for seed in range(count):
            video = edited(seed, fps=FPS)
            path = Path(folder) / f"{seed}.mp4"
            write_mp4(path, video.frames, FPS, np.zeros((2, 44_100), np.float32), 44_100)
            found, _ = _transitions(path)
            path.unlink()
            edits.update(edit.kind for edit in video.edits)
            hits.update(edit.kind for edit in matched(found, video.edits))
            num_found += len(found)
            advance(path.name)
    right = hits.total()
    precision, recall = right / max(num_found, 1), right / max(edits.total(), 1)
    lines = [
        f"| {kind} | {edits[kind]} | {hits[kind] / max(edits[kind], 1):.3f} |" for kind in JOINS
    ]
    return "\n".join(
        [
            "| generated | number | recall |",
            "|---|---|---|",
            *lines,
            f"\n{num_found} found: precision {precision:.3f}, recall {recall:.3f}, F1 "
            f"{2 * right / max(num_found + edits.total(), 1):.3f}\n\n",
        ]
    )


def matched(found: Sequence[Transition], truth: Sequence[Edit]) -> list[Edit]:
    """The edits that were found, each by a transition of its own."""
    rest = list(found)
    right = []
    for edit in truth:
        slack = TOLERANCE_S * FPS
        near = [
            one
            for one in rest
            if edit.begin - slack <= (one.begin + one.end) / 2 <= edit.end + slack
        ]
        if near:
            rest.remove(near[0])
            right.append(edit)
    return right


def _real(folder: Path) -> str:
    with (folder / "MANIFEST.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["n_shots"]]
    lines = ["| real | by hand | found |", "|---|---|---|"]
    num_right = num_short = 0
    with progress("real", len(rows)) as advance:
        for row in rows:
            wanted = int(row["n_shots"])
            found, stream = _transitions(folder / row["file"])
            got = len(shots(stream.times.tolist(), stream.end, found))
            num_short += wanted <= 10
            num_right += wanted <= 10 and abs(got - wanted) <= 1
            if got != wanted:
                lines.append(f"| {row['file']} | {wanted} | {got} |")
            advance(row["file"])
    summary = f"within one, of the clips of up to ten shots: {num_right} of {num_short}"
    return "\n".join([*lines, f"\n{len(rows)} clips, those above differ; {summary}\n"])


def _transitions(path: Path) -> tuple[list[Transition], SourceStream]:
    with opened(path, threads=1) as container:
        stream = SourceStream(container, MediaLimits())
        finder = ShotFinder(stream.nominal_fps)
        for picture in stream.pictures():
            finder.add(picture)
    return finder.finish(), stream


if __name__ == "__main__":
    main()
