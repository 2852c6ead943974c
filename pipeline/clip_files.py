"""The folder of clips as files: what is in it, what failed, and what is still to be made.

OUT/clips.json                    settings of the last run
OUT/clips/ab/CLIP_ID.mp4          H.264 without B-frames, FLAC or AAC
OUT/rows/CLIP_ID.json             what the file was found to hold; written last: the commit
OUT/failed/CLIP_ID.json           why there is no file
OUT/clips.parquet, clips.csv      one row a file, in the manifest's order
OUT/failed.parquet, failed.csv    one row a clip without a file
"""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from avdata import config as configuration
from avdata import storage
from avdata.errors import AvdataError
from avdata.pipeline.arrow import to_table
from avdata.pipeline.parts import TRANSIENT_STAGES

SETTINGS = "clips.json"
OURS = {SETTINGS, "rows"}
"""What tells such a folder from others."""
CLIP_ID = re.compile("[0-9a-f]{32}")
WRITE = "write"
"""Stage of a clip that was read and could not be written."""


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


@dataclass(frozen=True, slots=True)
class FailedRow:
    """One clip that has no file."""

    clip_id: str
    source: str
    start_s: float
    stage: str
    """Where it failed: read, memory, deadline, decode, write."""
    reason: str
    detail: str
    settings: str

    @property
    def may_pass(self) -> bool:
        """Whether it may have been the machine's fault: a busy one, a full disk."""
        return self.stage in (*TRANSIENT_STAGES, WRITE)


Row = TypeVar("Row", ClipRow, FailedRow)


@dataclass(frozen=True, slots=True)
class ClipFiles:
    """The folder."""

    root: Path

    def file(self, clip_id: str) -> Path:
        """Where a clip's file lies."""
        return self.root / "clips" / clip_id[:2] / f"{clip_id}.mp4"

    def commit(self, row: ClipRow) -> None:
        """Once the file is there."""
        storage.write_json(self._of("rows", row.clip_id), dataclasses.asdict(row))
        self._of("failed", row.clip_id).unlink(missing_ok=True)

    def fail(self, row: FailedRow) -> None:
        """Commits that there is no file."""
        storage.write_json(self._of("failed", row.clip_id), dataclasses.asdict(row))

    def row(self, clip_id: str, settings: str) -> ClipRow | FailedRow | None:
        """What these settings have come to; None where the file is to be made."""
        failed = self._read(FailedRow, "failed", clip_id, settings)
        if failed is not None:
            return failed
        row, file = self._read(ClipRow, "rows", clip_id, settings), self.file(clip_id)
        whole = row is not None and file.exists() and file.stat().st_size == row.size_bytes
        return row if whole else None

    def write_index(self, rows: Sequence[ClipRow], failed: Sequence[FailedRow]) -> None:
        """Commits both tables, each twice."""
        tables = {"clips": to_table(ClipRow, list(rows)), "failed": to_table(FailedRow, [*failed])}
        for name, table in tables.items():
            with storage.committed(self.root / f"{name}.parquet") as temporary:
                pq.write_table(table, temporary)
            with storage.committed(self.root / f"{name}.csv") as temporary:
                pa_csv.write_csv(table, temporary)

    def remove_others(self, rows: Sequence[ClipRow], failed: Sequence[FailedRow]) -> None:
        """What is named as a clip of ours and is in neither table: kept no more, or of a run whose
        settings were others.
        """
        written, lost = ({row.clip_id for row in table} for table in (rows, failed))
        for pattern, known in (
            ("clips/*/*.mp4", written),
            ("rows/*.json", written),
            ("failed/*.json", lost),
        ):
            for path in self.root.glob(pattern):
                if CLIP_ID.fullmatch(path.stem) and path.stem not in known:
                    path.unlink()

    def remove_stale(self) -> None:
        """What runs that were killed long ago have left half written."""
        for folder in (self.root, *map(self.root.joinpath, ("rows", "failed"))):
            storage.remove_stale(folder)
        for folder in self.root.glob("clips/*"):
            storage.remove_stale(folder)

    def _read(self, kind: type[Row], folder: str, clip_id: str, settings: str) -> Row | None:
        file = self._of(folder, clip_id)
        if not file.exists():
            return None
        try:
            row = configuration.from_plain(kind, storage.read_json(file), str(file))
        except AvdataError:  # Of an older version, or damaged.
            return None
        return row if row.settings == settings else None

    def _of(self, folder: str, clip_id: str) -> Path:
        return self.root / folder / f"{clip_id}.json"
