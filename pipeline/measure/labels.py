"""Claims derived from a clip's measurements; the thresholds are these."""

from avdata.pipeline.measure.motion import motion_label
from avdata.pipeline.record import Audio, ContactEvent, Labels, Motion

SILENT_DBFS = -50.0
"""Of the loudest 50 ms: the mean of a clip says nothing about a strike of 10 ms in its silence."""
SPEECH_SHARE = 0.15
MUSIC_SHARE = 0.3


def labels(moved: Motion, heard: Audio | None, events: list[ContactEvent]) -> Labels:
    """Of one clip."""
    silent = heard is None or (not events and heard.loudest_dbfs < SILENT_DBFS)
    return Labels(
        motion=motion_label(moved),
        contact=bool(events),
        silent=silent,
        speech=_at_least(SPEECH_SHARE, None if heard is None else heard.speech_share),
        music=_at_least(MUSIC_SHARE, None if heard is None else heard.tonal_share),
    )


def _at_least(limit: float, share: float | None) -> bool | None:
    return None if share is None else share >= limit
