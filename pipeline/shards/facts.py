"""What a sample says about its clip beside the arrays: its JSON, and the subsets it belongs to."""

import dataclasses
from typing import Any

from avdata.encoders.spec import ClipShape
from avdata.pipeline.record import Clip, ContactEvent, Labels


def facts(clip: Clip, shape: ClipShape) -> dict[str, Any]:
    """The sample's JSON: where it comes from, captions, labels, events.

    All that the index says of a sample is here, too, so that it can be made again from the tar.
    Of a clip that is longer than its bucket the rest and what happens there is left out; its motion
    is that of the whole clip.
    """
    return {
        "clip_id": clip.clip_id,
        "source": clip.source.uri,
        "source_digest": clip.source.digest,
        "groups": groups(clip),
        "subsets": subsets(clip, shape),
        "start_s": clip.start_s,
        "end_s": _end_s(clip, shape),
        "jumped_s": clip.jumped_s,
        "captions": said(clip),
        "labels": dataclasses.asdict(_labels(clip, shape)),
        "events": [dataclasses.asdict(event) for event in _events(clip, shape)],
    }


def groups(clip: Clip) -> list[str]:
    """Names of what the clip shares with others, near-duplicates and those that mean the same; no
    other split may have them.
    """
    copies, meaning = clip.duplicates, clip.semantics
    named = {
        "picture": copies and copies.picture_group,
        "sound": copies and copies.sound_group,
        "picture_meaning": meaning and meaning.picture_group,
        "sound_meaning": meaning and meaning.sound_group,
    }
    return [f"{what}:{group}" for what, group in named.items() if group is not None]


def subsets(clip: Clip, shape: ClipShape) -> list[str]:
    """Names of the subsets a sample belongs to; those of the paper's lists where it has tags."""
    labels = _labels(clip, shape)
    coupling = clip.semantics.coupling if clip.semantics else None
    member = {
        "contact": labels.contact,
        "large_motion": labels.motion == "large",
        "av_tight": coupling == "tight",
        "av_loose": coupling == "loose",
    }
    return [name for name, inside in member.items() if inside]


def said(clip: Clip) -> dict[str, Any] | None:
    """Its captions; a joint one as its words alone, where there are any."""
    if clip.captions is None:
        return None
    plain = dataclasses.asdict(clip.captions)
    joint = plain.pop("joint")
    return plain if joint is None or joint["text"] is None else {**plain, "joint": joint["text"]}


def _end_s(clip: Clip, shape: ClipShape) -> float:
    return min(clip.end_s, clip.start_s + shape.shown_seconds)


def _events(clip: Clip, shape: ClipShape) -> list[ContactEvent]:
    end_s = _end_s(clip, shape)
    shown_s = end_s - clip.start_s
    return [one for one in clip.events if one.t < shown_s or end_s == clip.end_s]


def _labels(clip: Clip, shape: ClipShape) -> Labels:
    lost = len(clip.events) > 0 and not _events(clip, shape)
    return dataclasses.replace(clip.labels, contact=False) if lost else clip.labels
