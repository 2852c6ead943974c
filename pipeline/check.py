"""Checks a manifest from the outside in; every problem is one line."""

from collections import Counter

from avdata.pipeline.manifest import Manifest
from avdata.pipeline.record import Clip


def check_manifest(manifest: Manifest) -> list[str]:
    """What is wrong: sources not accounted for, clips twice, spans and events that cannot be."""
    problems = _unaccounted(manifest)
    clips = manifest.clips()
    slack = 0.5 / manifest.settings()["fps"]  # A clip's last frame may be half missing.
    seen = Counter(clip.clip_id for clip in clips)
    problems += [f"clip {clip_id}: {count} rows" for clip_id, count in seen.items() if count > 1]
    for clip in clips:
        name = f"clip {clip.clip_id} of {clip.source.uri}"
        problems += [f"{name}: {what}" for what in _wrong(clip, slack)]
    return problems


def _unaccounted(manifest: Manifest) -> list[str]:
    lost = manifest.unaccounted()["uri"].to_pylist()
    return [f"source {uri}: neither clips nor a reason; run `avdata ingest` again" for uri in lost]


def _wrong(clip: Clip, slack: float) -> list[str]:
    length = clip.end_s - clip.start_s
    wrong = {
        f"ends at {clip.end_s} before it starts at {clip.start_s}": length <= 0,
        f"lies beyond the source's end at {clip.media.duration_s:.3f} s": (
            clip.end_s > clip.media.duration_s + slack
        ),
        "has an event outside itself": any(not 0 <= event.t <= length for event in clip.events),
        "is dropped without a reason": clip.status == "drop" and not clip.reasons,
        "is kept with reasons to drop it": clip.status == "keep" and bool(clip.reasons),
        "has no decision": clip.status not in ("keep", "drop"),
    }
    return [what for what, is_so in wrong.items() if is_so]
