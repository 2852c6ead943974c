"""What a policy has left of a manifest: the kept clips, and how many fell to which rule."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from avdata.errors import YieldCollapsed
from avdata.pipeline.arrow import from_table
from avdata.pipeline.decide import decide
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.policy import load_policy
from avdata.pipeline.record import Clip


def require_kept(manifest: Manifest) -> list[Clip]:
    """The kept clips; YieldCollapsed when the policy has dropped them all."""
    kept = manifest.clips("keep")
    require_any_kept(manifest.root, len(manifest.table(["status"])), len(kept))
    return kept


def require_any_kept(root: Path, clips: int, kept: int) -> None:
    """YieldCollapsed when the policy has dropped all of these clips."""
    if not kept:
        raise YieldCollapsed(
            f"{root}: none of {clips} clips is kept; "
            "see `avdata report` for the reasons, or `avdata select` with another policy"
        )


def require_captionable(manifest: Manifest) -> list[Clip]:
    """The clips that the policy would keep if all had captions and nothing were known of their
    meaning, which captions decide; YieldCollapsed without any.
    """
    return _kept_without(manifest, "caption_failure", "semantics")


def require_meaningful(manifest: Manifest) -> list[Clip]:
    """The clips that the policy would keep if nothing were known of their meaning, so that a rule
    about it does not decide what it is asked of; YieldCollapsed without any.
    """
    return _kept_without(manifest, "semantics")


def _kept_without(manifest: Manifest, *columns: str) -> list[Clip]:
    clips = manifest.table()
    for name in columns:
        at = clips.schema.get_field_index(name)
        field = clips.schema.field(at)
        clips = clips.set_column(at, field, pa.nulls(len(clips), field.type))
    clips = decide(clips, load_policy(manifest.root / "policy.yaml"))
    kept = clips.filter(pc.equal(clips["status"], "keep"))
    return from_table(Clip, kept) if len(kept) else require_kept(manifest)


def funnel(clips: pa.Table) -> dict[str, int]:
    """Clips in all, kept, and dropped by each reason (a clip may have several)."""
    counts = {"clips": len(clips), "keep": pc.sum(pc.equal(clips["status"], "keep")).as_py() or 0}
    reasons = pc.value_counts(pc.list_flatten(clips["reasons"]).combine_chunks())
    dropped = {row["values"]: row["counts"] for row in reasons.to_pylist()}
    return counts | dict(sorted(dropped.items(), key=lambda item: (-item[1], item[0])))


def quarantine_counts(manifest: Manifest) -> dict[str, int]:
    """Names that gave no clips, by reason."""
    counts = pc.value_counts(manifest.quarantine()["reason"]).to_pylist()
    return {row["values"]: row["counts"] for row in sorted(counts, key=lambda row: row["values"])}
