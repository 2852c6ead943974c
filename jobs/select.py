"""`avdata select`: keep or drop again, from stored numbers alone."""

from pathlib import Path

from avdata.pipeline.manifest import Manifest
from avdata.pipeline.selection import funnel


def select(root: Path, policy: Path | None) -> dict[str, int]:
    """Applies a policy to a manifest; None is the default policy. Answers the funnel."""
    manifest = Manifest(root)
    with manifest.alone():
        manifest.require_current()  # What cannot be decided again must not get a policy.
        manifest.set_policy(policy)
        manifest.decide_again()
    return funnel(manifest.table(["status", "reasons"]))
