"""`avdata clips`: the kept clips of a manifest as files, each decoded again and counted.

    OUT/clips/ab/CLIP_ID.mp4      H.264 without B-frames, FLAC or AAC
    OUT/rows/CLIP_ID.json         what the file was found to hold; written last, so it is the commit
    OUT/clips.json                the settings
    OUT/clips.parquet, clips.csv  one row a file, in the manifest's order

Running again makes what is missing and what other settings or a new manifest ask for.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from avdata import config as configuration
from avdata import storage
from avdata.encoders.spec import ClipShape
from avdata.errors import UsageError
from avdata.jobs.engine import Engine, stream
from avdata.pipeline.arrow import to_table
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.measure.source import IngestConfig
from avdata.pipeline.media.clip_file import own_shape, write_clip
from avdata.pipeline.media.write import SoundCodec, require_rate
from avdata.pipeline.record import Clip
from avdata.pipeline.selection import require_kept
from avdata.pipeline.sources.clips import clip_media
from avdata.pipeline.sources.copies import LocalCopies, remove_copies_of_the_dead
from avdata.progress import progress

VERSION = 2
"""Raise when the same clip gives another file; every file made before is then made again."""


@dataclass(frozen=True, slots=True)
class ClipsConfig:
    """What the files are like."""

    sound_codec: SoundCodec = "flac"
    longer_side: int | None = None
    """At most so many pixels, the shape kept; None is the source's own size."""
    sample_rate: int = 44_100
    max_copies_gib: float = 16.0
    """Local copies of remote sources that each worker keeps, and the largest it fetches."""

    def __post_init__(self) -> None:
        if self.longer_side is not None and self.longer_side < 32:
            raise ValueError(f"longer_side must be 32 at least, not {self.longer_side}")
        if self.sample_rate < 8000:
            raise ValueError(f"sample_rate must be 8000 at least, not {self.sample_rate}")
        require_rate(self.sound_codec, self.sample_rate)

    def digest(self, clip: Clip, num_frames: int, fps: int) -> str:
        """Of all that the file of a clip depends on."""
        settings = [self.sound_codec, self.longer_side, self.sample_rate]
        return storage.digest_json([VERSION, clip.clip_id, num_frames, fps, *settings])


@dataclass(frozen=True, slots=True)
class ClipRow:
    """One file of the index, as it was found when it was decoded again."""

    clip_id: str
    file_name: str
    """Under the index's folder."""
    source: str
    start_s: float
    """In the source."""
    duration_s: float
    num_frames: int
    fps: int
    width: int
    height: int
    num_samples: int
    sample_rate: int
    sound_codec: str
    lag_ms: float | None
    """Of the sound, from its own samples; None where it is silent."""
    size_bytes: int
    digest: str
    """xxh3-128 of the file's bytes."""
    settings: str


@dataclass
class WriteClip:
    """One clip: its file, then its row. Each process reads the manifest once."""

    root: Path
    out: Path
    config: ClipsConfig

    def __post_init__(self) -> None:
        manifest = Manifest(self.root)
        self.clips = {clip.clip_id: clip for clip in require_kept(manifest)}
        self.ingested = _ingested(manifest)
        remove_copies_of_the_dead()
        self.copies = LocalCopies(self.config.max_copies_gib)

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        clip, config = self.clips[item["clip_id"]], self.config
        num_frames, fps = self.ingested.num_frames, self.ingested.fps
        wanted = ClipShape(num_frames, fps, sample_rate=config.sample_rate)
        shown = clip.media.height, clip.media.width
        shape = own_shape(shown, wanted, config.longer_side)
        path = _file(self.out, clip.clip_id)
        found = write_clip(path, clip_media(clip, shape, self.copies), shape, config.sound_codec)
        row = ClipRow(
            clip_id=clip.clip_id,
            file_name=path.relative_to(self.out).as_posix(),
            source=clip.source.uri,
            start_s=clip.start_s,
            duration_s=found.duration_s,
            num_frames=found.num_frames,
            fps=fps,
            width=shape.width,
            height=shape.height,
            num_samples=found.num_samples,
            sample_rate=shape.sample_rate,
            sound_codec=config.sound_codec,
            lag_ms=found.lag_ms,
            size_bytes=path.stat().st_size,
            digest=storage.digest_file(path),
            settings=config.digest(clip, num_frames, fps),
        )
        storage.write_json(_row_file(self.out, clip.clip_id), dataclasses.asdict(row))
        return {"clip_id": clip.clip_id}


def write_clips(
    root: Path, out: Path, config: ClipsConfig, engine: Engine | None = None
) -> list[ClipRow]:
    """Writes the files that are not there yet, then the index of all."""
    storage.require_ours(out, ("clips.json",), "clips")
    manifest = Manifest(root)
    kept, ingested = require_kept(manifest), _ingested(manifest)
    storage.write_json(out / "clips.json", configuration.to_plain(config))
    todo = [
        {"clip_id": clip.clip_id}
        for clip in kept
        if not _is_done(out, clip, config.digest(clip, ingested.num_frames, ingested.fps))
    ]
    if todo:
        answers = stream(engine or Engine(), lambda: WriteClip(root, out, config), todo)
        with progress("clips", len(kept), len(kept) - len(todo)) as advance:
            for answer in answers:
                advance(answer["clip_id"])
    rows = [_row(_row_file(out, clip.clip_id)) for clip in kept]
    _write_index(out, rows)
    return rows


def _ingested(manifest: Manifest) -> IngestConfig:
    where = str(manifest.clips_file)
    return configuration.from_plain(IngestConfig, manifest.settings(), where)


def _is_done(out: Path, clip: Clip, settings: str) -> bool:
    path, row = _file(out, clip.clip_id), _row_file(out, clip.clip_id)
    if not (path.exists() and row.exists()):
        return False
    try:
        found = _row(row)
    except UsageError:  # Of an older version.
        return False
    return found.settings == settings and found.size_bytes == path.stat().st_size


def _row(path: Path) -> ClipRow:
    return configuration.from_plain(ClipRow, json.loads(path.read_text()), str(path))


def _file(out: Path, clip_id: str) -> Path:
    return out / "clips" / clip_id[:2] / f"{clip_id}.mp4"


def _row_file(out: Path, clip_id: str) -> Path:
    return out / "rows" / f"{clip_id}.json"


def _write_index(out: Path, rows: Sequence[ClipRow]) -> None:
    table = to_table(ClipRow, list(rows))
    with storage.committed(out / "clips.parquet") as temporary:
        pq.write_table(table, temporary)
    with storage.committed(out / "clips.csv") as temporary:
        pa_csv.write_csv(table, temporary)
