"""The manifest folder: what ingest, caption and select leave behind, and how it is assembled.

    DIR/digests/*.parquet         what the names of a running ingest hold, a batch a file
    DIR/parts/KEY.parquet         clips of one content, as measured      } one of the two
    DIR/quarantine/KEY.parquet    why it gave none                       } per content
    DIR/sources.parquet           names in force and the digest of each, settings, fingerprint
    DIR/ingest.json               the settings again, and versions, for people
    DIR/captions.parquet          captions by clip_id, when there are any
    DIR/semantics.parquet         what embeddings say by clip_id, when there are any
    DIR/semantics.json            what made that, and of which embeddings
    DIR/policy.yaml               the policy in force
    DIR/clips.parquet             THE manifest: every clip with its captions, status and reasons
    DIR/quarantine.parquet        every name that gave none
    DIR/lock                      who writes the folder: one command at a time

KEY is the digest of a source's bytes and the fingerprint of the settings, so the same bytes are
measured once whatever they are called. Names come in when the last two files are assembled; these
are a pure function of the others, so any command may be killed at any moment and run again. What
makes what out of date:

    a file's size, ETag or time of change     its digest is taken again, under any name
    a file's bytes                            its KEY, so it is measured again
    clip settings, limits, measuring code     the fingerprint, which is in every KEY; and captions
    failures of time, memory or reading       nothing: tried again by the next ingest
    the policy                                only `status` and `reasons`
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from avdata import storage
from avdata.errors import RunError, UsageError
from avdata.pipeline.arrow import arrow_schema, from_table, leaves, to_table
from avdata.pipeline.assembly import failures_by_name, named, row_groups, write_assembled
from avdata.pipeline.decide import decided
from avdata.pipeline.parts import (
    CLIPS,
    FILES_AT_ONCE,
    Parts,
    as_now,
    remove_damaged,
    undamaged,
    write_batches,
    write_table,
)
from avdata.pipeline.policy import Policy, load_policy
from avdata.pipeline.record import Captions, Clip, Quarantined, Semantics
from avdata.pipeline.sources.digests import forget_digests, require_none_lost
from avdata.pipeline.sources.table import SCHEMA, by_digest
from avdata.versions import versions

SETTINGS = b"avdata.ingest"
"""Key of the settings in Parquet metadata."""
AGAIN = "run `avdata ingest` again"


@dataclass(frozen=True, slots=True)
class CaptionRow:
    """Captions of one clip, by its id, or why there are none."""

    clip_id: str
    captions: Captions | None
    caption_failure: str | None = None


@dataclass(frozen=True, slots=True)
class SemanticsRow:
    """What was made of one clip's embeddings."""

    clip_id: str
    semantics: Semantics


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

    @property
    def sources_file(self) -> Path:
        """The names in force."""
        return self.root / "sources.parquet"

    @contextmanager
    def alone(self, is_new: bool = False) -> Iterator[None]:
        """Inside the block no other command writes the folder; UsageError where one does, or where
        there is no manifest and `is_new` does not allow for that.
        """
        if not (is_new or self.clips_file.exists()):
            raise _not_a_manifest(self.root)
        with storage.written(self.root):
            yield

    def remove_stale(self) -> None:
        """What runs that were killed long ago have left half written, and what is damaged and can
        be made again.
        """
        for folder in ("", "digests", "parts", "quarantine"):
            storage.remove_stale(self.root / folder)
            if folder:
                remove_damaged(self.root / folder)

    def unmeasured(self, sources: pa.Table, fingerprint: str, memory_gib: float) -> pa.Table:
        """Contents (`by_digest`) that have neither clips nor a reason for none that lasts with so
        much memory.
        """
        contents, parts = by_digest(sources), Parts(self.root, fingerprint)
        missing = pc.invert(pc.is_in(contents["digest"], value_set=parts.accounted()))
        again = pc.is_in(contents["digest"], value_set=parts.missing(memory_gib))
        return contents.filter(pc.or_(missing, again))

    def write_captions(self, rows: list[CaptionRow]) -> None:
        """Commits captions; those of clips that are not in `rows` go."""
        table = to_table(CaptionRow, sorted(rows, key=lambda row: row.clip_id))
        fingerprint = self._ingested()["fingerprint"]
        table = table.replace_schema_metadata({SETTINGS: fingerprint.encode()})
        write_table(table, self.root / "captions.parquet")

    def write_semantics(self, rows: list[SemanticsRow]) -> None:
        """Commits what embeddings say; those of clips that are not in `rows` go."""
        table = to_table(SemanticsRow, sorted(rows, key=lambda row: row.clip_id))
        made_from = self._made_from(self._ingested()["fingerprint"])
        table = table.replace_schema_metadata({SETTINGS: made_from.encode()})
        write_table(table, self.root / "semantics.parquet")

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

    def assemble(self, sources: pa.Table, settings: dict[str, Any], fingerprint: str) -> None:
        """Puts these sources and settings in force and writes the two assembled tables."""
        ingested = {"settings": settings, "fingerprint": fingerprint}
        # One file, so that names and fingerprint change at the same instant.
        about = {**(SCHEMA.metadata or {}), SETTINGS: json.dumps(ingested)}
        write_table(sources.replace_schema_metadata(about), self.sources_file)
        storage.write_json(self.root / "ingest.json", {**ingested, "versions": versions()})
        self.reassemble()
        forget_digests(self.root)

    def reassemble(self) -> None:
        """Writes the assembled tables again, after captions or the policy have changed."""
        ingested, sources = self._ingested(), self.sources()
        contents = by_digest(sources).sort_by("uri")
        parts = Parts(self.root, ingested["fingerprint"])
        measured = pc.is_in(contents["digest"], value_set=parts.measured())
        ours = contents.filter(measured)
        some = (ours.slice(at, FILES_AT_ONCE) for at in range(0, len(ours), FILES_AT_ONCE))
        rows = [
            (self._captions(ingested["fingerprint"]), ("captions", "caption_failure")),
            (self._semantics(ingested["fingerprint"]), ("semantics",)),
        ]
        write_assembled(
            (named(parts.clips(one["digest"].combine_chunks()), one) for one in some),
            rows,
            load_policy(self.root / "policy.yaml"),
            {SETTINGS.decode(): json.dumps(ingested["settings"])},
            self.clips_file,
        )
        rest = contents["digest"].filter(pc.invert(measured)).combine_chunks()
        failed = parts.failures(rest)
        write_table(failures_by_name(failed, sources), self.quarantine_file)

    def decide_again(self) -> None:
        """Applies the policy in force to the assembled clips, a row group at a time.

        The same bytes as from `reassemble`, but nothing else is looked at.
        """
        about = self.table([]).schema.metadata
        decided = (after for _, after in self.decided())
        write_batches(decided, CLIPS.with_metadata(about), self.clips_file)

    def decided(self) -> Iterator[tuple[pa.Table, pa.Table]]:
        """The assembled clips, a row group at a time: as they are, and as the policy in force has
        them.
        """
        policy = load_policy(self.root / "policy.yaml")
        self.require_current()
        return decided(self._groups, policy)

    def require_current(self) -> None:
        """UsageError where there is no manifest, RunError where another version assembled it."""
        with self._clips_checked():
            pass

    def table(self, columns: list[str] | None = None) -> pa.Table:
        """Every clip, or some columns, as an Arrow table; errors as of `require_current`."""
        with self._clips_checked():
            return pq.read_table(self.clips_file, columns=columns)

    def clips(self, status: str | None = None) -> list[Clip]:
        """Every clip, or those of one status."""
        table = self.table()
        if status is not None:
            table = table.filter(pc.equal(table["status"], status))
        return from_table(Clip, table)

    def quarantine(self) -> pa.Table:
        """Every name that gave no clips as an Arrow table."""
        if not self.quarantine_file.exists():
            raise _not_a_manifest(self.root)
        with undamaged(self.quarantine_file, AGAIN):
            return pq.read_table(self.quarantine_file)

    def quarantined(self) -> list[Quarantined]:
        """Every name that gave no clips."""
        return from_table(Quarantined, self.quarantine())

    def sources(self) -> pa.Table:
        """`SourceRow`s of the names in force."""
        if not self.sources_file.exists():
            raise _not_a_manifest(self.root)
        with undamaged(self.sources_file):
            return pq.read_table(self.sources_file)

    def unaccounted(self) -> pa.Table:
        """Contents in force that have neither clips nor a reason for none."""
        return self._unaccounted(self.sources(), self._ingested()["fingerprint"])

    def require_accounted(self, sources: pa.Table, fingerprint: str) -> None:
        """RunError when a content has neither clips nor a reason for none."""
        lost = self._unaccounted(sources, fingerprint)["uri"].to_pylist()
        require_none_lost(self.root, lost, "clips")

    def _unaccounted(self, sources: pa.Table, fingerprint: str) -> pa.Table:
        contents, known = by_digest(sources), Parts(self.root, fingerprint).accounted()
        return contents.filter(pc.invert(pc.is_in(contents["digest"], value_set=known)))

    def settings(self) -> dict[str, Any]:
        """The ingest settings under which the clips of the assembled manifest were cut."""
        settings: dict[str, Any] = json.loads(self.table([]).schema.metadata[SETTINGS])
        return settings

    def digest(self) -> str:
        """Of the assembled manifest's bytes."""
        return storage.digest_file(self.clips_file)

    def _groups(self, columns: list[str] | None) -> Iterator[pa.Table]:
        with self._clips_checked():
            yield from (some for _, some in row_groups(self.clips_file, columns))

    @contextmanager
    def _clips_checked(self) -> Iterator[None]:
        if not self.clips_file.exists():
            raise _not_a_manifest(self.root)
        with undamaged(self.clips_file, AGAIN):
            there = pq.read_schema(self.clips_file)
            if SETTINGS not in (there.metadata or {}):
                raise UsageError(
                    f"{self.clips_file}: no manifest, though `avdata clips` names its index so, "
                    "too; name the folder that `avdata ingest` made"
                )
            if list(leaves(there).items()) != list(leaves(CLIPS).items()):
                raise RunError(f"{self.clips_file}: made by another version; {AGAIN}")
            yield

    def _ingested(self) -> dict[str, Any]:
        if not self.sources_file.exists():
            raise _not_a_manifest(self.root)
        with undamaged(self.sources_file):
            metadata = pq.read_schema(self.sources_file).metadata
        ingested: dict[str, Any] = json.loads(metadata[SETTINGS])
        return ingested

    def _captions(self, fingerprint: str) -> pa.Table:
        return self._rows(CaptionRow, "captions.parquet", fingerprint)

    def _semantics(self, fingerprint: str) -> pa.Table:
        return self._rows(SemanticsRow, "semantics.parquet", self._made_from(fingerprint))

    def _made_from(self, fingerprint: str) -> str:
        """Of what scores depend on: measurements and captions."""
        captions = self.root / "captions.parquet"
        own = storage.digest_file(captions) if captions.exists() else None
        return storage.digest_json([fingerprint, own])

    def _rows(self, row: type[object], name: str, made_from: str) -> pa.Table:
        file = self.root / name
        if file.exists():
            with undamaged(file):
                rows = pq.read_table(file)
            if rows.schema.metadata.get(SETTINGS) == made_from.encode():
                return as_now(rows, arrow_schema(row), file)
        return arrow_schema(row).empty_table()  # Or made from something else.


def _not_a_manifest(root: Path) -> UsageError:
    what = "no manifest in this folder" if root.is_dir() else "no such folder"
    return UsageError(f"{root}: {what}; make one with `avdata ingest RAW --out {root}`")
