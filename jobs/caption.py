"""`avdata caption`: captions for the kept clips of a manifest."""

from pathlib import Path

from avdata.pipeline.captions import template_captions
from avdata.pipeline.manifest import CaptionRow, Manifest
from avdata.pipeline.selection import require_kept


def caption(root: Path) -> int:
    """Captions every kept clip from its template; answers how many."""
    manifest = Manifest(root)
    kept = require_kept(manifest)
    manifest.write_captions([CaptionRow(clip.clip_id, template_captions(clip)) for clip in kept])
    manifest.reassemble()
    return len(kept)
