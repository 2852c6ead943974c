"""`avdata clips`: the kept clips of a manifest as files, each decoded again and counted.

Running again makes what is missing and what other settings or a new manifest ask for, and tries
again what failed for a reason that may pass. What lies where: `pipeline/clip_files.py`.
"""

import pickle
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from avdata import config as configuration
from avdata import storage
from avdata.encoders.spec import ClipShape
from avdata.errors import MediaError, SourceLost, WriteRefused, YieldCollapsed
from avdata.jobs.engine import Engine, stream
from avdata.pipeline.clip_files import SETTINGS, WRITE, ClipFiles, ClipRow, FailedRow
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.measure.source import IngestConfig
from avdata.pipeline.media.clip_file import own_shape, write_clip
from avdata.pipeline.media.write import SoundCodec, require_rate
from avdata.pipeline.record import Clip
from avdata.pipeline.selection import require_kept
from avdata.pipeline.shards.decoders import DecodeLimits, Decoders
from avdata.pipeline.shards.failures import require_decoded, worded
from avdata.pipeline.sources.clips import clip_media
from avdata.pipeline.sources.copies import LocalCopies, remove_copies_of_the_dead
from avdata.pipeline.sources.digests import require_none_lost
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
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    """What decoding one clip may cost; beyond them it has no file, but a row in failed.csv."""
    retry_failed: bool = False
    """Tries again what failed, for whatever reason. What ran out of time or memory, could not be
    read or could not be written is tried again unasked.
    """
    max_failed_share: float = 0.1
    """Of the clips: when more fail, and more than one, the job stops."""
    max_copies_gib: float = 16.0
    """Local copies of remote sources that each worker keeps, and the largest it fetches."""

    def __post_init__(self) -> None:
        if self.longer_side is not None and self.longer_side < 32:
            raise ValueError(f"longer_side must be 32 at least, not {self.longer_side}")
        if self.sample_rate < 8000:
            raise ValueError(f"sample_rate must be 8000 at least, not {self.sample_rate}")
        require_rate(self.sound_codec, self.sample_rate)
        if not 0 <= self.max_failed_share <= 1:
            raise ValueError(f"max_failed_share must be in [0, 1], not {self.max_failed_share}")

    def digest(self, clip: Clip, num_frames: int, fps: int) -> str:
        """Of all that the file of a clip depends on."""
        settings = [self.sound_codec, self.longer_side, self.sample_rate]
        return storage.digest_json([VERSION, clip.clip_id, num_frames, fps, *settings])


@dataclass(frozen=True, slots=True)
class Written:
    """How a run ended."""

    rows: list[ClipRow]
    failed: list[FailedRow]
    """Clips without a file."""


@dataclass
class WriteClip:
    """One clip: its file, then its row; or why there is none."""

    out: Path
    config: ClipsConfig
    wanted: ClipShape
    """But for the size, which is each source's own."""

    def __post_init__(self) -> None:
        remove_copies_of_the_dead()
        self.files = ClipFiles(self.out)
        self.copies = LocalCopies(self.config.max_copies_gib)
        self.decoders = Decoders(self.config.limits)

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        clip: Clip = pickle.loads(item["clip"])
        try:
            self.files.commit(self._written(clip, item["settings"]))
            return {"clip_id": clip.clip_id, "why": []}
        except MediaError as error:
            why = error.stage, error.reason, error.detail
        except SourceLost as error:
            why = "read", "source_lost", str(error)
        except WriteRefused as error:
            why = WRITE, "refused", str(error)
        about = clip.clip_id, clip.source.uri, clip.start_s
        self.files.fail(FailedRow(*about, *why, settings=item["settings"]))
        return {"clip_id": clip.clip_id, "why": [worded(*why)]}

    def _written(self, clip: Clip, settings: str) -> ClipRow:
        config, path = self.config, self.files.file(clip.clip_id)
        shape = own_shape((clip.media.height, clip.media.width), self.wanted, config.longer_side)
        media = clip_media(clip, shape, self.copies, read=self.decoders.read)
        found = write_clip(path, media, shape, config.sound_codec)
        return ClipRow(
            clip_id=clip.clip_id,
            file_name=path.relative_to(self.out).as_posix(),
            source=clip.source.uri,
            start_s=clip.start_s,
            duration_s=found.duration_s,
            num_frames=found.num_frames,
            fps=shape.fps,
            width=shape.width,
            height=shape.height,
            num_samples=found.num_samples,
            sample_rate=shape.sample_rate,
            sound_codec=config.sound_codec,
            lag_ms=found.lag_ms,
            size_bytes=path.stat().st_size,
            digest=storage.digest_file(path),
            settings=settings,
        )


def write_clips(
    root: Path, out: Path, config: ClipsConfig, engine: Engine | None = None
) -> Written:
    """Writes the files that are not there yet, then the index of all; what is not in it goes.

    UsageError while another command writes the folder; RunError when more than `max_failed_share`
    of the clips fail, YieldCollapsed when all do.
    """
    storage.require_ours(out, (SETTINGS,), "clips")
    files, manifest = ClipFiles(out), Manifest(root)
    kept, ingested = require_kept(manifest), _ingested(manifest)
    num_frames, fps = ingested.num_frames, ingested.fps
    settings = {clip.clip_id: config.digest(clip, num_frames, fps) for clip in kept}
    with storage.written(out):
        storage.write_json(out / SETTINGS, configuration.to_plain(config))
        files.remove_stale()
        todo = [clip for clip in kept if not _is_done(files, clip, settings, config.retry_failed)]
        if todo:
            wanted = ClipShape(num_frames, fps, sample_rate=config.sample_rate)
            work = partial(WriteClip, out, config, wanted)
            items = (
                {"clip": pickle.dumps(clip), "settings": settings[clip.clip_id]} for clip in todo
            )
            answers = stream(engine or Engine(), work, items)
            _follow(out, answers, len(todo), len(kept), config.max_failed_share)
        rows = {clip_id: files.row(clip_id, made_with) for clip_id, made_with in settings.items()}
        require_none_lost(out, [one for one, row in rows.items() if row is None], "a file")
        done = Written(
            [row for row in rows.values() if isinstance(row, ClipRow)],
            [row for row in rows.values() if isinstance(row, FailedRow)],
        )
        files.write_index(done.rows, done.failed)
        files.remove_others(done.rows, done.failed)
    _require_enough(out, done, config.max_failed_share)
    return done


def _ingested(manifest: Manifest) -> IngestConfig:
    where = str(manifest.clips_file)
    return configuration.from_plain(IngestConfig, manifest.settings(), where)


def _is_done(files: ClipFiles, clip: Clip, settings: dict[str, str], retry_failed: bool) -> bool:
    row = files.row(clip.clip_id, settings[clip.clip_id])
    if isinstance(row, FailedRow):
        return not (retry_failed or row.may_pass)
    return row is not None


def _follow(
    out: Path,
    answers: Generator[dict[str, Any], None, None],
    todo: int,
    total: int,
    max_failed_share: float,
) -> None:
    """Until all clips to do are done; stops early where too many fail."""
    failed = 0
    with progress("clips", total, total - todo) as advance, closing(answers):
        for seen, answer in enumerate(answers, start=1):
            advance(answer["clip_id"])
            failed += len(answer["why"])
            for why in answer["why"] if seen < todo else ():  # In the end all clips count.
                require_decoded(out, failed, seen, todo, max_failed_share, why)


def _require_enough(out: Path, done: Written, max_failed_share: float) -> None:
    total = len(done.rows) + len(done.failed)
    for one in done.failed[:1]:
        why = worded(one.stage, one.reason, one.detail)
        require_decoded(out, len(done.failed), total, total, max_failed_share, why)
        if not done.rows:
            raise YieldCollapsed(f"{out}: none of {total} clips has a file; the first: {why}")
