"""`avdata ingest`: media files to a manifest, one part a source, on Ray Data."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avdata import config as configuration
from avdata import storage
from avdata.errors import MediaError, YieldCollapsed
from avdata.jobs.engine import Engine, stream
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.measure.child import MeasuringChild
from avdata.pipeline.measure.source import IngestConfig
from avdata.pipeline.media.files import SourceFile, find_sources
from avdata.pipeline.record import Quarantined
from avdata.progress import progress


@dataclass
class MeasureSource:
    """One source: measured in a child process, its part committed; the answer says how it went."""

    root: Path
    config: IngestConfig
    child: MeasuringChild = field(init=False)

    def __post_init__(self) -> None:
        self.child = MeasuringChild(self.config)

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        manifest, key, uri = Manifest(self.root), item["key"], item["uri"]
        try:
            clips = self.child.measure(Path(uri), uri)
        except MediaError as error:
            manifest.write_failure(
                key,
                Quarantined(
                    uri=uri,
                    size_bytes=item["size_bytes"],
                    stage=error.stage,
                    reason=error.reason,
                    detail=error.detail,
                    attempts=1,
                ),
            )
            return {"uri": uri, "clips": 0, "reason": error.reason}
        manifest.write_part(key, clips)
        return {"uri": uri, "clips": len(clips), "reason": ""}


def ingest(
    raw: Sequence[Path],
    out: Path,
    config: IngestConfig,
    policy: Path | None = None,
    engine: Engine | None = None,
) -> Manifest:
    """Measures what is not yet measured, then assembles the manifest.

    Without a policy the one in force stays, at first the default.

    YieldCollapsed when no source gave a clip.
    """
    sources = find_sources(raw)
    storage.require_ours(out, ("policy.yaml",), "manifest")
    manifest = Manifest(out)
    manifest.keep_policy(policy)
    keyed = {source.key(config.fingerprint): source for source in sources}
    todo = []
    for key, source in keyed.items():
        if not source.is_nameable:
            manifest.write_failure(key, _unnameable(source))
        elif not manifest.is_done(key):
            todo.append({"key": key, "uri": source.uri, "size_bytes": source.size_bytes})
    # The largest first: a long source started last would leave every other core idle.
    todo.sort(key=lambda item: (-int(str(item["size_bytes"])), str(item["uri"])))
    if todo:
        answers = stream(engine or Engine(), lambda: MeasureSource(out, config), todo)
        with progress("ingest", len(keyed), len(keyed) - len(todo)) as advance:
            for answer in answers:
                advance(Path(answer["uri"]).name)
    manifest.assemble(list(keyed), configuration.to_plain(config), config.fingerprint)
    if len(manifest.table()) == 0:
        failed = manifest.quarantined()
        raise YieldCollapsed(
            f"{out}: none of {len(failed)} sources gave a clip; the first, {failed[0].uri}: "
            f"{failed[0].reason} ({failed[0].detail}); all are in {manifest.quarantine_file}"
        )
    return manifest


def _unnameable(source: SourceFile) -> Quarantined:
    detail = "no UTF-8: rename the file"
    return Quarantined(source.uri, source.size_bytes, "list", "file_name", detail, attempts=0)
