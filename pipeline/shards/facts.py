"""What a sample says about its clip beside the arrays: its JSON, and the subsets it belongs to."""

import dataclasses
from typing import Any

from avdata.pipeline.record import Clip


def facts(clip: Clip) -> dict[str, Any]:
    """The sample's JSON: where it comes from, captions, labels, events.

    All that the index says of a sample is here, too, so that it can be made again from the tar.
    """
    return {
        "clip_id": clip.clip_id,
        "source": clip.source.uri,
        "source_digest": clip.source.digest,
        "subsets": subsets(clip),
        "start_s": clip.start_s,
        "end_s": clip.end_s,
        "captions": dataclasses.asdict(clip.captions) if clip.captions else None,
        "labels": dataclasses.asdict(clip.labels),
        "events": [dataclasses.asdict(event) for event in clip.events],
    }


def subsets(clip: Clip) -> list[str]:
    """Names of the subsets a clip belongs to."""
    member = {"contact": clip.labels.contact, "large_motion": clip.labels.motion == "large"}
    return [name for name, inside in member.items() if inside]
