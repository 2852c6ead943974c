"""How well contacts are found: precision, recall and lag, on generated and on labelled real videos.

    python benchmarks/contacts.py --videos 100 --seed 4242 [--hard]
    python benchmarks/contacts.py MEDIA/MANIFEST.csv [--unrelated]

With `--unrelated` struck sounds at random times, 0.8 to 2.5 s apart, are given in place of the
sound of every video under a minute that has no contacts: none of them may become one.
MANIFEST.csv names files beside it in `file` and their contacts, in seconds apart by `;`, in
`contact_times_s`; `other_impulse_times_s` are sounds that must not become contacts. Only what lies
inside a clip counts. Generated contacts match within 50 ms, hand-labelled ones within 100 ms.
"""

import csv
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from avdata.errors import MediaError
from avdata.pipeline.measure.events import heard_and_seen
from avdata.pipeline.measure.motion import FlowMeter
from avdata.pipeline.measure.shots import ShotFinder, shots
from avdata.pipeline.measure.source import IngestConfig, measure_source
from avdata.pipeline.measure.strikes import Strike
from avdata.pipeline.media.limits import MediaLimits
from avdata.pipeline.media.stream import SourceStream, opened
from avdata.pipeline.record import Clip
from avdata.pipeline.world.corpus import WorldConfig, generate, read_truth, truth_path
from avdata.pipeline.world.variants import MIXED, VariantShares

LONGEST_S = 60.0
NUM_DRAWS = 5


@dataclass
class Tally:
    """Counts over sources."""

    found: int = 0
    true: int = 0
    hit: int = 0
    others: int = 0
    others_found: int = 0
    clips: int = 0
    lags_ms: list[float] = field(default_factory=list)

    def add(self, clips: list[Clip], true: list[float], others: list[float], within: float) -> None:
        """One source."""
        events = sorted({event.t + clip.start_s for clip in clips for event in clip.events})
        spans = [(clip.start_s, clip.end_s) for clip in clips]
        true, others = (
            [t for t in times if any(low <= t < high for low, high in spans)]
            for times in (true, others)
        )
        self.clips += len(clips)
        self.found += len(events)
        self.true += len(true)
        self.hit += matched(events, true, within)
        self.others += len(others)
        self.others_found += matched(events, others, within)
        self.lags_ms += [event.lag_ms for clip in clips for event in clip.events]

    def row(self, name: str) -> str:
        """A line of the table."""
        precision, recall = self.hit / max(1, self.found), self.hit / max(1, self.true)
        f1 = 2 * self.hit / max(1, self.found + self.true)
        lag = f"{np.median(self.lags_ms):+.0f} ± {np.std(self.lags_ms):.0f}" if self.lags_ms else ""
        return (
            f"| {name} | {self.clips} | {self.true} | {self.found} | {precision:.3f} "
            f"| {recall:.3f} | {f1:.3f} | {lag} | {self.others_found} of {self.others} |"
        )


def matched(events: list[float], true: list[float], within: float) -> int:
    """How many true times have an event of their own."""
    left, count = list(events), 0
    for time in true:
        near = [event for event in left if abs(event - time) <= within]
        if near:
            left.remove(min(near, key=lambda event: abs(event - time)))
            count += 1
    return count


def main(
    manifest: Annotated[Path | None, typer.Argument(help="CSV of labelled real videos.")] = None,
    videos: Annotated[int, typer.Option(min=1, help="Generated ones.")] = 70,
    seed: Annotated[int, typer.Option(min=0)] = 7,
    hard: Annotated[bool, typer.Option("--hard", help="Generated with every variant.")] = False,
    unrelated: Annotated[bool, typer.Option("--unrelated", help="Random sounds instead.")] = False,
) -> None:
    """Prints one line a source of any note, then the sums."""
    if manifest is not None and unrelated:
        _unrelated(manifest)
        return
    columns = "source|clips|true|found|precision|recall|F1|lag, ms|other impulses found"
    typer.echo(f"| {columns.replace('|', ' | ')} |\n|{'---|' * 9}")
    if manifest is None:
        _generated(videos, seed, MIXED if hard else VariantShares())
    else:
        _labelled(manifest)


def _generated(videos: int, seed: int, variants: VariantShares) -> None:
    kinds: dict[str, Tally] = {}
    with tempfile.TemporaryDirectory() as folder:
        for path in generate(
            Path(folder), WorldConfig(num_videos=videos, seed=seed, variants=variants)
        ):
            truth = read_truth(truth_path(path))
            clips = measure_source(path, path.name, IngestConfig())
            # An event is where the sound is: what is seen at t is heard at t_heard.
            true = [contact.t_heard for contact in truth.evident() if contact.t_heard is not None]
            others = truth.misleading()
            for name in (truth.kind, *truth.variants, "all"):
                kinds.setdefault(name, Tally()).add(clips, true, others, 0.05)
    for kind, tally in sorted(kinds.items()):
        typer.echo(tally.row(kind))


def _labelled(manifest: Path) -> None:
    total = Tally()
    for row in csv.DictReader(manifest.open()):
        path = manifest.parent / row["file"]
        true, others = _times(row["contact_times_s"]), _times(row["other_impulse_times_s"])
        if row["has_contact_events"] == "y" and not true:
            continue  # Contacts without times can be neither found nor missed.
        try:
            clips = measure_source(path, path.name, IngestConfig())
        except MediaError:
            continue
        one = Tally()
        for tally in (one, total):
            tally.add(clips, true, others, 0.1)
        if one.found or one.true or one.others:
            typer.echo(one.row(path.name))
    typer.echo(total.row("all"))


def _unrelated(manifest: Path) -> None:
    """One line a video, then the sum."""
    total, found = 0, 0
    for row in csv.DictReader(manifest.open()):
        seconds = float(row["duration_container_s"] or 0)
        if row["split"] != "train" or row["has_contact_events"] != "n" or seconds >= LONGEST_S:
            continue
        events, sounds = 0, 0
        with opened(manifest.parent / row["file"], 1) as container:
            stream = SourceStream(container, MediaLimits())
            meter, finder = FlowMeter(), ShotFinder(stream.nominal_fps)
            for picture in stream.pictures():
                finder.add(picture)
                meter.add(picture)
        times, transitions = stream.times.tolist(), finder.finish()
        for one in transitions:
            meter.cut(times[one.end])
        spans = shots(times, stream.end, transitions)
        for seed in range(NUM_DRAWS):
            drawn = np.cumsum(np.random.default_rng(seed).uniform(0.8, 2.5, int(LONGEST_S)))
            at = drawn[drawn < stream.end - 0.2].tolist()
            struck = [Strike(t, -10.0) for t in at]
            sounds += len(at)
            events += len(heard_and_seen(spans, at, struck, meter)[0])
        typer.echo(f"{row['file']}: {events} of {sounds}")
        total, found = total + sounds, found + events
    typer.echo(f"all: {found} of {total}, {found / max(1, total):.1%}")


def _times(text: str) -> list[float]:
    return [float(time) for time in re.findall(r"\d+\.?\d*", re.sub(r"\(.*?\)", "", text))]


if __name__ == "__main__":
    typer.run(main)
