"""What captioners have answered, committed a batch a file, so that a run that stops has lost at
most one batch and the next asks only for what is missing.

    DIR/captions/FINGERPRINT/DIGEST.parquet

FINGERPRINT is that of one role's captioner, prompt and media settings, and of the measurements:
answers to other questions never meet.
"""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from avdata import storage
from avdata.encoders import captioner
from avdata.pipeline.arrow import arrow_schema, from_table, to_table
from avdata.pipeline.media.child import PASSING
from avdata.pipeline.parts import read_tables, write_table

MEDIA = "media_"
"""Begins reasons of clips that could not be read: nobody was asked."""
TRANSIENT_REASONS = (
    *captioner.TRANSIENT_REASONS,
    *(f"{MEDIA}{reason}" for reason in PASSING),
)
"""Reasons that may pass, those of a machine that was busy among them."""


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """A caption of one clip, or a reason; never both."""

    clip_id: str
    text: str | None
    reason: str | None
    detail: str

    @property
    def may_pass(self) -> bool:
        """Whether the clip is to be asked about again."""
        return self.reason in TRANSIENT_REASONS

    @property
    def is_fault(self) -> bool:
        """Whether there is no caption for another reason than what was said."""
        return self.reason is not None and self.reason not in captioner.SAID


@dataclass(frozen=True, slots=True)
class Answers:
    """Those of one fingerprint."""

    root: Path
    fingerprint: str

    @property
    def folder(self) -> Path:
        """Where they are."""
        return self.root / "captions" / self.fingerprint

    def write(self, rows: list[AnswerRow]) -> None:
        """Commits a batch."""
        rows = sorted(rows, key=lambda row: row.clip_id)
        name = storage.digest_json([[row.clip_id, row.text, row.reason] for row in rows])
        write_table(to_table(AnswerRow, rows), self.folder / f"{name}.parquet")

    def read(self) -> dict[str, AnswerRow]:
        """By clip; of several a caption goes first, then a reason that lasts."""
        files = sorted(self.folder.glob("*.parquet"))
        table = read_tables(files, arrow_schema(AnswerRow))
        passing = pc.is_in(table["reason"], value_set=pa.array(TRANSIENT_REASONS))
        rank = pc.add(pc.cast(pc.is_null(table["text"]), pa.int8()), pc.cast(passing, pa.int8()))
        table = table.append_column("rank", rank)
        table = table.sort_by([("rank", "descending"), ("text", "descending")])
        return {row.clip_id: row for row in from_table(AnswerRow, table.drop_columns("rank"))}
