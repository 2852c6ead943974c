"""What a sample says about its clip beside the arrays: its JSON, and the subsets it belongs to."""

import dataclasses
from typing import Any

from avdata.encoders.spec import ClipShape
from avdata.pipeline.record import Clip


def facts(clip: Clip, shape: ClipShape) -> dict[str, Any]:
    """The sample's JSON: where it comes from, captions, labels, events.

    All that the index says of a sample is here, too, so that it can be made again from the tar.
    Of a clip that is longer than its bucket the rest and what happens there is left out.
    """
    end_s = min(clip.end_s, clip.start_s + shape.shown_seconds)
    return {
        "clip_id": clip.clip_id,
        "source": clip.source.uri,
        "source_digest": clip.source.digest,
        "groups": groups(clip),
        "subsets": subsets(clip),
        "start_s": clip.start_s,
        "end_s": end_s,
        "captions": dataclasses.asdict(clip.captions) if clip.captions else None,
        "labels": dataclasses.asdict(clip.labels),
        "events": [
            dataclasses.asdict(event)
            for event in clip.events
            if event.t < end_s - clip.start_s or end_s == clip.end_s
        ],
    }


def groups(clip: Clip) -> list[str]:
    """Names of what the clip shares with other sources, which no other split may have."""
    found = clip.duplicates
    named = {} if found is None else {"picture": found.picture_group, "sound": found.sound_group}
    return [f"{what}:{group}" for what, group in named.items() if group is not None]


def subsets(clip: Clip) -> list[str]:
    """Names of the subsets a clip belongs to."""
    member = {"contact": clip.labels.contact, "large_motion": clip.labels.motion == "large"}
    return [name for name, inside in member.items() if inside]
