"""What the embeddings of one medium, picture or sound, say of clips: scores of their captions,
tags, groups of clips that mean the same. Captions that do not belong to their clips stop it.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from avdata.encoders.embedder import AudioText, ImageText
from avdata.pipeline.alike import alike
from avdata.pipeline.embeddings import Embeddings
from avdata.pipeline.guard import require_own, said_of
from avdata.pipeline.record import Clip
from avdata.pipeline.semantics import (
    TEMPLATES,
    Classes,
    agreement,
    chances,
    cosines,
    nearest,
)
from avdata.pipeline.text_embeddings import TextEmbeddings

BLOCK = 65_536
"""Clips whose chances are in memory at once."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be made of embeddings."""

    classes: Classes
    tags: int
    alike: float | None
    guard: bool
    texts_at_once: int


@dataclass
class Meaning:
    """One entry a clip in each list; None where there is no embedding."""

    score: list[float | None]
    tags: list[list[str] | None]
    group: list[str | None]
    places: list[int]
    """Clips that have an embedding, in the order of `media`."""
    media: Float32[ndarray, "n d"]
    classes: dict[str, Float32[ndarray, " d"]]
    scale: float
    texts: TextEmbeddings
    """Where those of captions and classes are."""


def meaning(
    store: Embeddings, model: ImageText | AudioText, clips: list[Clip], wanted: Wanted
) -> Meaning:
    """Of the clips in their order; RunError when captions belong to other clips."""
    count, medium = len(clips), store.medium
    places, media = store.read([clip.clip_id for clip in clips])
    names = wanted.classes.names
    named = [TEMPLATES[medium].format(name) for name in names]
    said = {row: text for row, k in enumerate(places) if (text := said_of(clips[k], medium))}
    texts = TextEmbeddings.of(store.root, medium, model.spec)
    texts.add([*named, *said.values()], model, wanted.texts_at_once)
    classes = texts.read(named)[1]
    found = Meaning(
        [None] * count,
        [None] * count,
        [None] * count,
        places,
        media,
        dict(zip(names, classes, strict=True)),
        model.scale,
        texts,
    )
    if said:
        rows, own = list(said), [clips[places[row]] for row in said]
        captions = texts.read(list(said.values()))[1]
        if wanted.guard:
            require_own(store.root, medium, media[rows], captions, own)
        for row, score in zip(rows, cosines(media[rows], captions), strict=True):
            found.score[places[row]] = round(float(score), 6)
    tags = nearest(media, classes, names, wanted.tags)
    for k, mine in zip(places, tags, strict=True):
        found.tags[k] = mine
    if wanted.alike is not None:
        _group(found, clips, wanted.alike)
    return found


def audio_visual(picture: Meaning, sound: Meaning) -> list[float | None]:
    """How alike the zero-shot classes of each clip's picture and sound are (`agreement`), over the
    classes that both have names for; None without either embedding, or under two such classes.
    """
    found: list[float | None] = [None] * len(picture.score)
    shared = [name for name in picture.classes if name in sound.classes]
    if len(shared) < 2:
        return found
    rows = {k: row for row, k in enumerate(sound.places)}
    both = [(k, row, rows[k]) for row, k in enumerate(picture.places) if k in rows]
    texts = [np.stack([one.classes[name] for name in shared]) for one in (picture, sound)]
    for first in range(0, len(both), BLOCK):
        places, seen, heard = zip(*both[first : first + BLOCK], strict=True)
        scores = agreement(
            chances(picture.media[list(seen)], texts[0], picture.scale),
            chances(sound.media[list(heard)], texts[1], sound.scale),
        )
        for k, score in zip(places, scores, strict=True):
            found[k] = round(float(score), 6)
    return found


def _group(found: Meaning, clips: list[Clip], threshold: float) -> None:
    members: dict[int, list[int]] = {}
    for row, one in enumerate(alike(found.media, threshold).tolist()):
        members.setdefault(one, []).append(found.places[row])
    for group in members.values():
        if len(group) > 1:
            name = min(clips[k].clip_id for k in group)
            for k in group:
                found.group[k] = name
