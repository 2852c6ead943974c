"""`avdata ingest`: media to a manifest, one part a content, on Ray Data."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from avdata import config as configuration
from avdata import storage
from avdata.errors import MediaError, UsageError, YieldCollapsed
from avdata.jobs.digest import digest_sources
from avdata.jobs.engine import Engine, stream
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.measure.child import MeasuringChild
from avdata.pipeline.measure.source import IngestConfig
from avdata.pipeline.parts import TRANSIENT_STAGES, Parts
from avdata.pipeline.policy import load_policy
from avdata.pipeline.record import Clip, Quarantined
from avdata.pipeline.sources.copies import local_copy, remove_copies_of_the_dead
from avdata.pipeline.sources.files import base_name, reading
from avdata.pipeline.sources.listing import find_sources
from avdata.pipeline.sources.outage import InARow, outage
from avdata.progress import progress

NAMES = 8
"""Of one content, tried one after another: of empty files there may be millions."""


@dataclass
class MeasureSource:
    """One content: measured in a child process, its part committed."""

    root: Path
    config: IngestConfig
    """Decided where the command runs."""
    fingerprint: str
    child: MeasuringChild = field(init=False)

    def __post_init__(self) -> None:
        self.config.require_models()
        if self.config.fingerprint != self.fingerprint:
            raise _differs(self.config.shots.transnet)
        remove_copies_of_the_dead()
        self.child = MeasuringChild(self.config)

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        parts = Parts(self.root, self.fingerprint)
        uris, size, digest = item["uris"], item["size_bytes"], item["digest"]
        why = None
        try:
            parts.write_clips(digest, self._clips(uris, digest))
        except MediaError as error:
            failed = Quarantined(
                uris[0],
                size,
                error.stage,
                error.reason,
                error.detail,
                attempts=1,
                memory_gib=self.config.limits.memory_gib,
            )
            parts.write_failure(digest, failed)
            why = outage(error)
        return {"uri": uris[0], "size_bytes": size, "why": why}

    def _clips(self, uris: list[str], digest: str) -> list[Clip]:
        """From the first of these names that can be read and has these bytes."""
        failed: list[MediaError] = []
        for uri in uris:
            try:
                return self._named(uri, digest)
            except MediaError as error:
                if error.stage != "read":
                    raise
                failed.append(error)
        raise failed[0]

    def _named(self, uri: str, digest: str) -> list[Clip]:
        with local_copy(uri, self.config.limits.max_fetch_gib) as path:
            try:
                clips = self.child.measure(path, uri)
            except MediaError as error:
                if error.stage not in TRANSIENT_STAGES:  # It lasts: it must be of these bytes.
                    with reading("read"):
                        _require_same(storage.digest_file(path), digest)
                raise
        _require_same(clips[0].source.digest, digest)
        return clips


def _require_same(found: str, digest: str) -> None:
    if found != digest:
        raise MediaError("read", "changed", "its bytes changed while it was ingested")


def _differs(transnet: str | None) -> UsageError:
    """This machine would measure otherwise than that of the command."""
    file = f"shots.transnet: {transnet} is another file than that of the command, or "
    return UsageError(
        f"{file if transnet else ''}{socket.gethostname()} has another version of avdata; install "
        "the same on all machines"
    )


def ingest(
    raw: Sequence[str | Path],
    out: Path,
    config: IngestConfig,
    policy: Path | None = None,
    engine: Engine | None = None,
) -> Manifest:
    """Measures what is not yet measured, then assembles the manifest.

    Without a policy the one in force stays, at first the default.

    UsageError while another command writes the manifest; RunError when many sources in a row cannot
    be read; YieldCollapsed when no source gave a clip.
    """
    engine, config = engine or Engine(), config.decided()
    config.require_models()
    load_policy(policy)  # To list a corpus takes long.
    most = config.max_failures_in_a_row
    found = find_sources(raw, most)
    storage.require_ours(out, ("policy.yaml",), "manifest")
    manifest = Manifest(out)
    with manifest.alone(is_new=True):
        manifest.remove_stale()
        manifest.keep_policy(policy)
        sources = digest_sources(out, found, config.limits.max_fetch_gib, engine, most)
        _measure(manifest, sources, config, engine)
        manifest.require_accounted(sources, config.fingerprint)
        manifest.assemble(sources, configuration.to_plain(config), config.fingerprint)
    if len(manifest.table()) == 0:
        first = manifest.quarantine().slice(0, 1).to_pylist()[0]
        raise YieldCollapsed(
            f"{out}: none of {len(sources)} sources gave a clip; the first, {first['uri']}: "
            f"{first['reason']} ({first['detail']}); all are in {manifest.quarantine_file}"
        )
    return manifest


def _measure(manifest: Manifest, sources: pa.Table, config: IngestConfig, engine: Engine) -> None:
    todo = manifest.unmeasured(sources, config.fingerprint, config.limits.memory_gib)
    if len(todo) == 0:
        return
    # The largest first: a long source started last would leave every other core idle.
    todo = todo.sort_by([("size_bytes", "descending"), ("uri", "ascending")])
    answers = stream(
        engine, partial(MeasureSource, manifest.root, config, config.fingerprint), _rows(todo)
    )
    size_bytes = pc.sum(todo["size_bytes"]).as_py()
    in_a_row = InARow(config.max_failures_in_a_row)
    total = pc.count_distinct(sources["digest"]).as_py()
    with progress("ingest", total, total - len(todo), size_bytes) as advance, closing(answers):
        for answer in answers:
            advance(base_name(answer["uri"]), work=answer["size_bytes"])
            in_a_row.tell(answer["uri"], answer["why"])


def _rows(todo: pa.Table) -> Iterator[dict[str, Any]]:
    names = pc.list_slice(todo["uris"], 0, NAMES)
    todo = todo.select(["digest", "size_bytes"]).append_column("uris", names)
    for batch in todo.to_batches(max_chunksize=1000):
        yield from batch.to_pylist()
