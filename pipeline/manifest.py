"""The manifest folder: what ingest, caption and select leave behind, and how it is assembled.

    DIR/parts/KEY.parquet         clips of one source, as measured       } one of the two
    DIR/quarantine/KEY.parquet    why one source gave none               } per source
    DIR/captions.parquet          captions by clip_id, when there are any
    DIR/policy.yaml               the policy in force
    DIR/clips.parquet             THE manifest: every clip with its captions, status and reasons
    DIR/quarantine.parquet        every source that failed

The two assembled files are a pure function of the others, so any command may be killed at any
moment and run again. KEY is a digest of the source's name, size and time of change and of the
settings' fingerprint: a part of other settings or of a changed file is never taken for a new one.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from avdata import storage
from avdata.errors import UsageError, YieldCollapsed
from avdata.pipeline.arrow import arrow_schema, from_table, to_table
from avdata.pipeline.policy import Policy, decide, load_policy
from avdata.pipeline.record import Captions, Clip, Quarantined


@dataclass(frozen=True, slots=True)
class CaptionRow:
    """Captions of one clip, by its id."""

    clip_id: str
    captions: Captions


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest folder."""

    root: Path

    @property
    def clips_file(self) -> Path:
        """The assembled manifest."""
        return self.root / "clips.parquet"

    @property
    def quarantine_file(self) -> Path:
        """The assembled quarantine table."""
        return self.root / "quarantine.parquet"

    def is_done(self, key: str) -> bool:
        """Whether the source of this key has been measured."""
        return self._part(key).exists() or self._failure(key).exists()

    def write_part(self, key: str, clips: list[Clip]) -> None:
        """Commits the clips of one source."""
        _write(to_table(Clip, clips), self._part(key))

    def write_failure(self, key: str, failed: Quarantined) -> None:
        """Commits that one source gave no clips."""
        _write(to_table(Quarantined, [failed]), self._failure(key))

    def write_captions(self, rows: list[CaptionRow]) -> None:
        """Commits captions; those of clips that are not in `rows` go."""
        ordered = sorted(rows, key=lambda row: row.clip_id)
        _write(to_table(CaptionRow, ordered), self.root / "captions.parquet")

    def set_policy(self, file: Path | None) -> Policy:
        """Checks a policy and keeps its text with the manifest; None is the default."""
        policy = load_policy(file)
        text = {"name": policy.name, "rules": policy.rules}
        storage.write_json(self.root / "policy.yaml", text)  # JSON is YAML.
        return policy

    def assemble(self, keys: list[str]) -> None:
        """Writes the two assembled tables from the parts of these sources."""
        storage.write_json(self.root / "sources.json", sorted(keys))
        self.reassemble()

    def reassemble(self) -> None:
        """Writes the assembled tables again, after captions or the policy have changed."""
        try:
            keys = json.loads((self.root / "sources.json").read_text())
        except FileNotFoundError:
            raise _not_a_manifest(self.root) from None
        parts = [self._part(key) for key in keys if self._part(key).exists()]
        failures = [self._failure(key) for key in keys if self._failure(key).exists()]
        clips = _merge_same(_read(parts, arrow_schema(Clip)))
        clips = self._with_captions(clips)
        _write(decide(clips, load_policy(self.root / "policy.yaml")), self.clips_file)
        failed = _read(failures, arrow_schema(Quarantined)).sort_by("uri")
        _write(failed, self.quarantine_file)

    def table(self) -> pa.Table:
        """Every clip as an Arrow table; UsageError where there is no manifest."""
        if not self.clips_file.exists():
            raise _not_a_manifest(self.root)
        return pq.read_table(self.clips_file)

    def clips(self, status: str | None = None) -> list[Clip]:
        """Every clip, or those of one status."""
        table = self.table()
        if status is not None:
            table = table.filter(pc.equal(table["status"], status))
        return from_table(Clip, table)

    def quarantined(self) -> list[Quarantined]:
        """Every source that failed."""
        if not self.quarantine_file.exists():
            raise _not_a_manifest(self.root)
        return from_table(Quarantined, pq.read_table(self.quarantine_file))

    def digest(self) -> str:
        """Of the assembled manifest's bytes."""
        return storage.digest_file(self.clips_file)

    def _part(self, key: str) -> Path:
        return self.root / "parts" / f"{key}.parquet"

    def _failure(self, key: str) -> Path:
        return self.root / "quarantine" / f"{key}.parquet"

    def _with_captions(self, clips: pa.Table) -> pa.Table:
        file = self.root / "captions.parquet"
        if not file.exists():
            return clips
        rows = pq.read_table(file)
        found = pc.index_in(clips["clip_id"], value_set=rows["clip_id"].combine_chunks())
        captions = rows["captions"].combine_chunks().take(found.combine_chunks())
        at = clips.schema.get_field_index("captions")
        return clips.set_column(at, clips.schema.field(at), captions)


def require_kept(manifest: Manifest) -> list[Clip]:
    """The kept clips; YieldCollapsed when the policy has dropped them all."""
    kept = manifest.clips("keep")
    if not kept:
        raise YieldCollapsed(
            f"{manifest.root}: none of {len(manifest.table())} clips is kept; "
            "see `avdata report` for the reasons, or `avdata select` with another policy"
        )
    return kept


def funnel(clips: pa.Table) -> dict[str, int]:
    """Clips in all, kept, and dropped by each reason (a clip may have several)."""
    counts = {"clips": len(clips), "keep": pc.sum(pc.equal(clips["status"], "keep")).as_py() or 0}
    reasons = pc.value_counts(pc.list_flatten(clips["reasons"]).combine_chunks())
    dropped = {row["values"]: row["counts"] for row in reasons.to_pylist()}
    return counts | dict(sorted(dropped.items(), key=lambda item: (-item[1], item[0])))


def _merge_same(clips: pa.Table) -> pa.Table:
    """One row a clip_id, in order of uri and start; the other names go into `source.uris`."""
    table = clips.append_column("_uri", pc.struct_field(clips["source"], "uri"))
    table = table.sort_by([("_uri", "ascending"), ("start_s", "ascending")]).drop_columns("_uri")
    if pc.count_distinct(table["clip_id"]).as_py() == len(table):
        return table
    merged: dict[str, dict[str, object]] = {}
    for row in table.to_pylist():
        same = merged.setdefault(row["clip_id"], row)
        if same is not row:
            same["source"]["uris"] += row["source"]["uris"]  # type: ignore[index]
    return pa.Table.from_pylist(list(merged.values()), schema=table.schema)


def _read(files: list[Path], schema: pa.Schema) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in files] or [schema.empty_table()])


def _write(table: pa.Table, file: Path) -> None:
    with storage.committed(file) as temporary:
        pq.write_table(table, temporary)


def _not_a_manifest(root: Path) -> UsageError:
    what = "no manifest in this folder" if root.is_dir() else "no such folder"
    return UsageError(f"{root}: {what}; make one with `avdata ingest RAW --out {root}`")
