"""Embeddings of texts, captions and names of classes alike, beside the manifest: each different
text is embedded once by a model.

    DIR/embeddings/MEDIUM-text-FINGERPRINT/DIGEST.parquet     text_digest, embedding (float16)

FINGERPRINT is that of the model. What is handed out is always what lies there, so a run that finds
all of them gives the same numbers as the one that made them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32
from numpy import ndarray

from avdata import storage
from avdata.encoders.embedder import AudioText, EmbeddingSpec, ImageText
from avdata.pipeline.embeddings import column_of, unit_rows
from avdata.pipeline.parts import read_tables, write_table
from avdata.pipeline.semantics import Medium
from avdata.progress import progress

VERSION = 1
"""Raise when the same text gives another embedding; all are then made again."""
TEXTS = 256
"""So many are in a file."""


@dataclass(frozen=True, slots=True)
class TextEmbeddings:
    """Those of one medium and one fingerprint."""

    root: Path
    medium: Medium
    fingerprint: str
    width: int

    @classmethod
    def of(cls, root: Path, medium: Medium, spec: EmbeddingSpec) -> "TextEmbeddings":
        """Those that one model makes."""
        return cls(root, medium, storage.digest_json([VERSION, spec.digest]), spec.width)

    @property
    def folder(self) -> Path:
        """Where they are."""
        return self.root / "embeddings" / f"{self.medium}-text-{self.fingerprint}"

    @property
    def schema(self) -> pa.Schema:
        """Of each file."""
        embedding = pa.list_(pa.float16(), self.width)
        return pa.schema([("text_digest", pa.string()), ("embedding", embedding)])

    def add(self, texts: list[str], model: ImageText | AudioText, at_once: int) -> None:
        """Asks the model for what is not there, `at_once` texts a call, and commits it."""
        known = set(self._table()["text_digest"].to_pylist())
        new = {one: text for text in texts if (one := _digest(text)) not in known}
        if not new:
            return
        digests, given = list(new), list(new.values())
        with progress(f"embed texts for {self.medium}", len(new)) as advance:
            for first in range(0, len(new), TEXTS):
                own = digests[first : first + TEXTS]
                rows = _rows(given[first : first + TEXTS], model, at_once)
                columns = [pa.array(own, pa.string()), column_of(rows)]
                table = pa.Table.from_arrays(columns, schema=self.schema)
                write_table(table, self.folder / f"{storage.digest_json(own)}.parquet")
                advance(by=len(own))

    def read(self, texts: list[str]) -> tuple[list[int], Float32[ndarray, "n d"]]:
        """Which of these texts have an embedding, as places in the list, and those of unit norm."""
        table = self._table().combine_chunks()
        wanted = pa.array([_digest(text) for text in texts], pa.string())
        at = pc.index_in(wanted, value_set=table["text_digest"])
        places = [k for k, valid in enumerate(at.is_valid().to_pylist()) if valid]
        column = table["embedding"].combine_chunks().take(pc.drop_null(at))
        return places, unit_rows(column, self.width)

    def _table(self) -> pa.Table:
        return read_tables(sorted(self.folder.glob("*.parquet")), self.schema)


def _rows(texts: list[str], model: ImageText | AudioText, at_once: int) -> Float32[ndarray, "n d"]:
    some = (texts[first : first + at_once] for first in range(0, len(texts), at_once))
    return np.concatenate([model.texts(one).cpu().numpy() for one in some])


def _digest(text: str) -> str:
    return storage.digest_bytes(text.encode())
