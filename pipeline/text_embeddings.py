"""Embeddings of texts, captions and names of classes alike, beside the manifest: each different
text is embedded once by a model.

    DIR/embeddings/MEDIUM-text-FINGERPRINT/DIGEST.parquet     text_digest, embedding (float16)

FINGERPRINT is that of the model. What is handed out is always what lies there, so a run that finds
all of them gives the same numbers as the one that made them.
"""

from dataclasses import dataclass
from pathlib import Path

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
"""The model is given so many at once, and so many are in a file."""


@dataclass(frozen=True, slots=True)
class TextEmbeddings:
    """Those that one model made."""

    root: Path
    medium: Medium
    spec: EmbeddingSpec

    @property
    def folder(self) -> Path:
        """Where they are."""
        fingerprint = storage.digest_json([VERSION, self.spec.digest])
        return self.root / "embeddings" / f"{self.medium}-text-{fingerprint}"

    @property
    def schema(self) -> pa.Schema:
        """Of each file."""
        embedding = pa.list_(pa.float16(), self.spec.width)
        return pa.schema([("text_digest", pa.string()), ("embedding", embedding)])

    def embedded(self, texts: list[str], model: ImageText | AudioText) -> Float32[ndarray, "n d"]:
        """Of unit norm, a row a text; the model is asked for what is not there, and that kept."""
        digests = [storage.digest_bytes(text.encode()) for text in texts]
        known = set(self._table()["text_digest"].to_pylist())
        new = {one: text for one, text in zip(digests, texts, strict=True) if one not in known}
        if new:
            self._add(list(new), list(new.values()), model)
        table = self._table().combine_chunks()
        at = pc.index_in(pa.array(digests, pa.string()), value_set=table["text_digest"])
        return unit_rows(table["embedding"].combine_chunks().take(at), self.spec.width)

    def _add(self, digests: list[str], texts: list[str], model: ImageText | AudioText) -> None:
        with progress(f"embed texts for {self.medium}", len(texts)) as advance:
            for first in range(0, len(texts), TEXTS):
                own = digests[first : first + TEXTS]
                found = model.texts(texts[first : first + TEXTS]).cpu().numpy()
                columns = [pa.array(own, pa.string()), column_of(found)]
                table = pa.Table.from_arrays(columns, schema=self.schema)
                write_table(table, self.folder / f"{storage.digest_json(own)}.parquet")
                advance(by=len(own))

    def _table(self) -> pa.Table:
        return read_tables(sorted(self.folder.glob("*.parquet")), self.schema)
