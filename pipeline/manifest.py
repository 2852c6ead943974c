"""The manifest folder: what ingest, caption and select leave behind, and how it is assembled.

    DIR/parts/KEY.parquet         clips of one source, as measured       } one of the two
    DIR/quarantine/KEY.parquet    why one source gave none               } per source
    DIR/ingest.json               settings, their fingerprint, versions, and the KEYs in force
    DIR/captions.parquet          captions by clip_id, when there are any
    DIR/policy.yaml               the policy in force
    DIR/clips.parquet             THE manifest: every clip with its captions, status and reasons
    DIR/quarantine.parquet        every source that failed

The two assembled files are a pure function of the others, so any command may be killed at any
moment and run again. What makes what out of date:

    a file's name, size or time of change     its KEY, so the source is measured again
    clip settings, limits, measuring code     the fingerprint, which is in every KEY; and captions
    failures of time, memory or reading       nothing: tried again by the next ingest
    the policy                                only `status` and `reasons`
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from avdata import storage
from avdata.errors import RunError, UsageError, YieldCollapsed
from avdata.pipeline.arrow import arrow_schema, from_table, to_table
from avdata.pipeline.policy import Policy, decide, load_policy
from avdata.pipeline.record import Captions, Clip, Quarantined
from avdata.versions import versions

TRANSIENT = ("deadline", "memory", "read")
"""Stages whose failures may pass: the machine was busy, the network away."""
SETTINGS = b"avdata.ingest"
"""Key of the settings in the Parquet metadata of the assembled manifest."""


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
        """Whether the source of this key has been measured, or has failed for good."""
        failure = self._failed(key)
        return self._part(key).exists() or (failure is not None and failure.stage not in TRANSIENT)

    def write_part(self, key: str, clips: list[Clip]) -> None:
        """Commits the clips of one source."""
        _write(to_table(Clip, clips), self._part(key))
        self._failure(key).unlink(missing_ok=True)

    def write_failure(self, key: str, failed: Quarantined) -> None:
        """Commits that one source gave no clips; counts the attempts."""
        before = self._failed(key)
        attempts = 1 if before is None else before.attempts + 1
        _write(to_table(Quarantined, [replace(failed, attempts=attempts)]), self._failure(key))

    def write_captions(self, rows: list[CaptionRow]) -> None:
        """Commits captions; those of clips that are not in `rows` go."""
        table = to_table(CaptionRow, sorted(rows, key=lambda row: row.clip_id))
        fingerprint = self._ingested()["fingerprint"]
        table = table.replace_schema_metadata({SETTINGS: fingerprint.encode()})
        _write(table, self.root / "captions.parquet")

    def keep_policy(self, file: Path | None) -> None:
        """As `set_policy`, but None keeps the policy in force where there is one."""
        if file is not None or not (self.root / "policy.yaml").exists():
            self.set_policy(file)

    def set_policy(self, file: Path | None) -> Policy:
        """Checks a policy and keeps its text with the manifest; None is the default."""
        policy = load_policy(file)
        text = {"name": policy.name, "rules": policy.rules}
        storage.write_json(self.root / "policy.yaml", text)  # JSON is YAML.
        return policy

    def assemble(self, keys: list[str], settings: dict[str, Any], fingerprint: str) -> None:
        """Writes the two assembled tables from the parts of these sources."""
        ingested = {
            "settings": settings,
            "fingerprint": fingerprint,
            "versions": versions(),
            "sources": sorted(keys),
        }
        storage.write_json(self.root / "ingest.json", ingested)
        self.reassemble()

    def reassemble(self) -> None:
        """Writes the assembled tables again, after captions or the policy have changed."""
        ingested = self._ingested()
        keys = ingested["sources"]
        parts = [self._part(key) for key in keys if self._part(key).exists()]
        failures = [self._failure(key) for key in keys if not self._part(key).exists()]
        clips = _merge_same(_read(parts, arrow_schema(Clip)))
        clips = self._with_captions(clips, ingested["fingerprint"])
        clips = decide(clips, load_policy(self.root / "policy.yaml"))
        about = {**(clips.schema.metadata or {}), SETTINGS: json.dumps(ingested["settings"])}
        _write(clips.replace_schema_metadata(about), self.clips_file)
        failed = _read(failures, arrow_schema(Quarantined)).sort_by("uri")
        _write(failed, self.quarantine_file)

    def table(self) -> pa.Table:
        """Every clip as an Arrow table; UsageError where there is no manifest."""
        if not self.clips_file.exists():
            raise _not_a_manifest(self.root)
        try:
            return pq.read_table(self.clips_file)
        except (pa.ArrowInvalid, OSError) as error:
            raise RunError(
                f"{self.clips_file}: damaged ({error}); run `avdata ingest` again"
            ) from error

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

    def sources(self) -> list[str]:
        """KEYs of all sources, measured or failed."""
        keys: list[str] = self._ingested()["sources"]
        return keys

    def settings(self) -> dict[str, Any]:
        """The ingest settings under which the clips of the assembled manifest were cut."""
        settings: dict[str, Any] = json.loads(self.table().schema.metadata[SETTINGS])
        return settings

    def digest(self) -> str:
        """Of the assembled manifest's bytes."""
        return storage.digest_file(self.clips_file)

    def _ingested(self) -> dict[str, Any]:
        try:
            return storage.read_json(self.root / "ingest.json")
        except FileNotFoundError:
            raise _not_a_manifest(self.root) from None

    def _failed(self, key: str) -> Quarantined | None:
        file = self._failure(key)
        return from_table(Quarantined, pq.read_table(file))[0] if file.exists() else None

    def _part(self, key: str) -> Path:
        return self.root / "parts" / f"{key}.parquet"

    def _failure(self, key: str) -> Path:
        return self.root / "quarantine" / f"{key}.parquet"

    def _with_captions(self, clips: pa.Table, fingerprint: str) -> pa.Table:
        file = self.root / "captions.parquet"
        if not file.exists():
            return clips
        rows = pq.read_table(file)
        if rows.schema.metadata.get(SETTINGS) != fingerprint.encode():
            return clips  # Made from other measurements than these.
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
