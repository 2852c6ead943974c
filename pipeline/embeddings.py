"""Embeddings of clips beside the manifest, committed a batch a file.

    DIR/embeddings/MEDIUM-FINGERPRINT/DIGEST.parquet     clip_id, embedding (float16), reason

FINGERPRINT is that of the model and of what it was shown. A clip that could not be decoded has a
reason and no embedding; where the reason may pass, it is decoded again by the next run.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32
from numpy import ndarray

from avdata import storage
from avdata.pipeline.media.child import PASSING
from avdata.pipeline.parts import read_tables, write_table
from avdata.pipeline.semantics import Medium

NO_SOUND = "no_sound"
"""The reason of a clip that has nothing to embed, which is no failure."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Those of one medium and one fingerprint."""

    root: Path
    medium: Medium
    fingerprint: str
    width: int

    @property
    def folder(self) -> Path:
        """Where they are."""
        return self.root / "embeddings" / f"{self.medium}-{self.fingerprint}"

    @property
    def schema(self) -> pa.Schema:
        """Of each file."""
        embedding = pa.list_(pa.float16(), self.width)
        names = [("clip_id", pa.string()), ("embedding", embedding), ("reason", pa.string())]
        return pa.schema(names)

    def write(
        self,
        clip_ids: list[str],
        embeddings: Float32[ndarray, "n d"],
        failed: dict[str, str],
    ) -> None:
        """Commits a batch: embeddings of `clip_ids`, and reasons of clips that have none."""
        column = column_of(embeddings)
        empty = pa.nulls(len(failed), column.type)
        columns = [
            pa.array([*clip_ids, *failed], pa.string()),
            pa.concat_arrays([column, empty]),
            pa.array([None] * len(clip_ids) + list(failed.values()), pa.string()),
        ]
        table = pa.Table.from_arrays(columns, schema=self.schema)
        name = storage.digest_json([*clip_ids, *failed])
        write_table(table, self.folder / f"{name}.parquet")

    def known(self, retry_failed: bool = False) -> pa.Array:
        """Clips that need not be looked at again; with `retry_failed` none that failed is."""
        table = self._table()
        passing = pc.is_in(table["reason"], value_set=pa.array(PASSING))
        again = _failed(table) if retry_failed else passing
        return table["clip_id"].filter(pc.invert(again)).combine_chunks()

    def failures(self, clip_ids: pa.Array) -> list[str]:
        """Reasons why some of these could not be decoded, one each."""
        table = self._table()
        table = table.filter(pc.is_in(table["clip_id"], value_set=clip_ids))
        known = table["clip_id"].filter(pc.invert(_failed(table)))
        lost = table.filter(pc.invert(pc.is_in(table["clip_id"], value_set=known)))
        reasons = dict(zip(lost["clip_id"].to_pylist(), lost["reason"].to_pylist(), strict=True))
        return list(reasons.values())

    def read(self, clip_ids: list[str]) -> tuple[list[int], Float32[ndarray, "n d"]]:
        """Which of these clips have an embedding, as places in the list, and those of unit norm."""
        table = self._table()
        table = table.filter(pc.is_valid(table["embedding"])).combine_chunks()
        at = pc.index_in(pa.array(clip_ids, pa.string()), value_set=table["clip_id"])
        places = [k for k, valid in enumerate(at.is_valid().to_pylist()) if valid]
        column = table["embedding"].combine_chunks().take(pc.drop_null(at))
        return places, unit_rows(column, self.width)

    def _table(self) -> pa.Table:
        return read_tables(sorted(self.folder.glob("*.parquet")), self.schema)


def column_of(embeddings: Float32[ndarray, "n d"]) -> pa.FixedSizeListArray:
    """As float16."""
    flat = pa.array(embeddings.astype(np.float16).ravel(), pa.float16())
    return pa.FixedSizeListArray.from_arrays(flat, embeddings.shape[1])


def unit_rows(column: pa.FixedSizeListArray, width: int) -> Float32[ndarray, "n d"]:
    """What `column_of` made, of unit norm."""
    flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    found: Float32[ndarray, "n d"] = flat.reshape(len(column), width)
    found /= np.linalg.norm(found, axis=1, keepdims=True).clip(1e-6)  # Of rounding.
    return found


def _failed(table: pa.Table) -> pa.ChunkedArray:
    return pc.fill_null(pc.not_equal(table["reason"], NO_SOUND), False)
