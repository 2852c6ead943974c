"""Time from file to clip: flash-and-click files in every container, read as ingest and encode do.

    python benchmarks/time.py

Per file: frames decoded of those made; where the sound starts against where it was put; by how
much clicks come late against the true times of their flashes, largest first, in the measured
stream, in `read_clip`, and in the clip written as a file of its own and read again. What AVI, which
has no timestamps, cannot say is taken off and named. Counts of each clip are checked besides: N
frames, M samples, in the manifest's row, the clip, and its file.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avdata.encoders.spec import ClipShape
from avdata.pipeline.measure.source import IngestConfig, measure_source
from avdata.pipeline.media.clip import read_clip
from avdata.pipeline.media.clip_file import write_clip
from avdata.pipeline.media.limits import MediaLimits
from avdata.pipeline.media.sound import Mono
from avdata.pipeline.media.stream import ANALYSIS_RATE, SourceStream, opened
from avdata.pipeline.world.flashes import HEIGHT, WIDTH, FlashFile, click_times, write_flashes
from avdata.progress import progress

SHAPE = ClipShape(num_frames=33, fps=16, height=HEIGHT, width=WIDTH)
CASES = (
    *(FlashFile(audio_codec=codec) for codec in ("aac", "flac", "libmp3lame", "libopus")),
    FlashFile(rate=44_100),
    FlashFile(b_frames=0),
    *(FlashFile(sound_start_s=late) for late in (0.12, -0.2)),
    FlashFile(sound_start_s=0.12, rate=44_100, variable=True),
    FlashFile(variable=True),
    FlashFile(cut_s=1.7),
    FlashFile(cut_s=1.7, audio_codec="flac"),
    FlashFile("mov", audio_codec="pcm_s16le", sound_start_s=0.12),
    FlashFile("mov", rate=44_100),
    FlashFile("mov", audio_codec="pcm_s16le", cut_s=1.7),
    *(FlashFile("mkv", audio_codec=codec) for codec in ("aac", "flac", "libopus", "libmp3lame")),
    FlashFile("mkv", audio_codec="pcm_s16le", sound_start_s=0.12, variable=True),
    FlashFile("mkv", sound_start_s=-0.2, rate=44_100),
    *(FlashFile("ts", audio_codec=codec) for codec in ("aac", "libmp3lame", "libopus")),
    FlashFile("ts", sound_start_s=0.12, rate=44_100),
    FlashFile("ts", sound_start_s=-0.2),
    FlashFile("webm", "libvpx-vp9", "libopus"),
    FlashFile("webm", "libvpx", "libvorbis", rate=44_100),
    FlashFile("webm", "libvpx", "libopus", sound_start_s=0.12, variable=True),
    FlashFile("avi", "mpeg4", "libmp3lame", b_frames=0),
    FlashFile("avi", "mpeg4", "pcm_s16le", rate=44_100, b_frames=0),
    FlashFile("avi", "libx264", "libmp3lame", rate=44_100),
    FlashFile("avi", "libx264", "pcm_s16le", sound_start_s=0.12),
)


@dataclass(frozen=True, slots=True)
class Row:
    """What was found of one file; errors in ms, the largest."""

    frames: str
    start_ms: float
    stream_ms: float
    clip_ms: float
    file_ms: float
    counts: bool

    @property
    def good(self) -> bool:
        """Within the promises."""
        errors = self.stream_ms, self.clip_ms, self.file_ms
        return self.counts and max(map(abs, errors)) <= 1.0


def main() -> None:
    """The command."""
    lines = [
        "| file | frames | sound starts (put) ms | stream | clip | its file | counts | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder, progress("time", len(CASES)) as advance:
        for number, made in enumerate(CASES):
            path = Path(folder) / f"{number}.{made.suffix}"
            write_flashes(path, made)
            row = measured(path, made)
            lost = f"{1000 * made.lost_s:+.1f} ms lost by AVI" if made.lost_s else ""
            put = f"{row.start_ms:.1f} ({1000 * made.sound_start_s:g})"
            errors = f"{row.stream_ms:+.2f} | {row.clip_ms:+.2f} | {row.file_ms:+.2f}"
            counts, verdict = "exact" if row.counts else "WRONG", "ok" if row.good else "LATE"
            cells = f"{_name(made)} | {row.frames} | {put} | {errors} | {counts} | {verdict}"
            lines.append(f"| {cells} {lost} |")
            advance(_name(made))
    sys.stdout.write("\n".join(lines) + "\n")


def measured(path: Path, made: FlashFile) -> Row:
    """Errors and counts of one file."""
    zero = float(made.times[0])
    flashes = [flash - zero + made.lost_s for flash in made.flashes]
    with opened(path, threads=1) as container:
        stream = SourceStream(container, MediaLimits())
        num_frames = sum(1 for _ in stream.pictures())
        sound, media = stream.sound(), stream.media()
    assert sound is not None
    late = click_times(Mono(sound)[:][None], ANALYSIS_RATE, flashes) - flashes
    rows = measure_source(path, path.name, IngestConfig())
    counts = [num_frames == len(made.times), bool(rows)]
    clip_errors, file_errors = [], []
    for row in rows:
        counts.append(abs(row.end_s - row.start_s - SHAPE.shown_seconds) < 1e-9)
        clip = read_clip(path, row.in_file_s, SHAPE)
        copy = path.with_name("clip.mp4")
        found = write_clip(copy, clip, SHAPE, "flac")
        again = read_clip(copy, 0.0, SHAPE)
        inside = [
            flash - row.start_s for flash in flashes if 0.05 < flash - row.start_s < SHAPE.seconds
        ]
        for media_of, errors in ((clip, clip_errors), (again, file_errors)):
            errors += list(click_times(media_of.samples, SHAPE.sample_rate, inside) - inside)
            counts += [media_of.frames.shape[0] == 33, media_of.samples.shape[1] == 88_200]
        counts += [found.num_frames == 33, found.num_samples == 88_200]
    return Row(
        frames=f"{num_frames}/{len(made.times)}",
        start_ms=media.av_lag_ms if media.av_lag_ms is not None else np.nan,
        stream_ms=_largest_ms(late),
        clip_ms=_largest_ms(np.array(clip_errors)),
        file_ms=_largest_ms(np.array(file_errors)),
        counts=all(counts),
    )


def _largest_ms(errors: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    return 1000 * float(errors[np.abs(errors).argmax()])


def _name(made: FlashFile) -> str:
    video, audio = made.video_codec.removeprefix("lib"), made.audio_codec.removeprefix("lib")
    parts = [made.suffix, video, audio, f"{made.rate / 1000:g} kHz"]
    parts += [f"{made.b_frames} B"] if video in ("x264", "mpeg4") else []
    parts += ["VFR"] if made.variable else []
    parts += ["cut by copy"] if made.cut_s else []
    return " ".join(parts)


if __name__ == "__main__":
    main()
