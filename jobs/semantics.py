"""`avdata semantics`: what CLIP and CLAP make of the kept clips of a manifest.

Pictures and sounds are embedded once by workers, a GPU each where there are any, and kept beside
the manifest. Scores of captions, tags and groups of clips that mean the same are made of them in
this process, again with every run. Captions that do not belong to their clips stop it.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Float32
from numpy import ndarray

from avdata import config as configuration
from avdata import storage
from avdata.encoders.clap import Clap
from avdata.encoders.clip import OpenClip
from avdata.encoders.device import usable
from avdata.encoders.embedder import AudioText, ImageText
from avdata.encoders.spec import ClipShape
from avdata.errors import MediaError, RunError, UsageError
from avdata.jobs.engine import Engine, stream
from avdata.pipeline.alike import alike
from avdata.pipeline.captions import template_captions
from avdata.pipeline.embeddings import Embeddings
from avdata.pipeline.manifest import Manifest, SemanticsRow
from avdata.pipeline.measure.source import IngestConfig
from avdata.pipeline.media.clip import ClipMedia
from avdata.pipeline.media.clip_file import own_shape
from avdata.pipeline.record import Clip, Semantics
from avdata.pipeline.selection import require_kept
from avdata.pipeline.semantics import (
    MEDIA,
    TEMPLATES,
    Medium,
    cosines,
    load_classes,
    mismatches,
    nearest,
)
from avdata.pipeline.sources.clips import clip_media
from avdata.pipeline.sources.copies import LocalCopies, remove_copies_of_the_dead
from avdata.progress import progress

VERSION = 1
"""Raise when the same clip gives another embedding; all are then made again."""
BATCH = 32
"""Clips of one item of work and of one file."""
TEXTS = 256
SAMPLE_RATE = 48_000
LONGER_SIDE = 448


@dataclass(frozen=True, slots=True)
class SemanticsConfig:
    """Which models, and what is made of their embeddings."""

    picture: OpenClip | None = None
    sound: Clap | None = None
    picture_classes: Path | None = None
    """A file of names for tags, one a line; None is VGGSound's."""
    sound_classes: Path | None = None
    tags: int = 3
    frames: int = 4
    """Evenly over the clip; its picture's embedding is their mean."""
    alike: float | None = None
    """Cosine from which two clips mean the same, such as 0.95; None looks for none."""
    guard: bool = True
    """Whether captions that do not belong to their clips stop the run."""
    device: str = "auto"
    max_copies_gib: float = 16.0

    def __post_init__(self) -> None:
        if self.tags < 1 or self.frames < 1:
            raise ValueError("tags and frames must be 1 or more")
        if self.alike is not None and not 0 < self.alike <= 1:
            raise ValueError(f"alike must be in (0, 1], not {self.alike}")

    def model(self, medium: Medium) -> OpenClip | Clap | None:
        """Of one medium."""
        return self.picture if medium == "picture" else self.sound

    def store(self, root: Path, medium: Medium, ingested: str) -> Embeddings | None:
        """Where embeddings of a medium lie; UsageError when weights are missing."""
        model = self.model(medium)
        if model is None:
            return None
        spec = model.spec()
        shown = [self.frames, LONGER_SIDE] if medium == "picture" else [SAMPLE_RATE]
        fingerprint = storage.digest_json([VERSION, spec.digest, shown, ingested])
        return Embeddings(root, medium, fingerprint, spec.width)


@dataclass
class EmbedClips:
    """One batch of clips: read once, embedded, committed. Each process loads the models once."""

    root: Path
    config: SemanticsConfig
    stores: dict[Medium, Embeddings]
    picture: ImageText | None = field(init=False, default=None)
    sound: AudioText | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        remove_copies_of_the_dead()
        manifest, device = Manifest(self.root), usable(self.config.device)
        self.clips = {clip.clip_id: clip for clip in require_kept(manifest)}
        self.ingested = _ingested(manifest)
        self.copies = LocalCopies(self.config.max_copies_gib)
        if "picture" in self.stores and self.config.picture is not None:
            self.picture = self.config.picture.open(device)
        if "sound" in self.stores and self.config.sound is not None:
            self.sound = self.config.sound.open(device)

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        media: dict[str, ClipMedia] = {}
        failed: dict[str, str] = {}
        for clip_id in item["clip_ids"]:
            try:
                media[clip_id] = self._read(self.clips[clip_id])
            except MediaError as error:
                failed[clip_id] = error.reason
        for medium, store in self.stores.items():
            heard = medium == "picture" or {k for k in media if self.clips[k].audio is not None}
            mine = {k: one for k, one in media.items() if heard is True or k in heard}
            none = {k: "no_sound" for k in media if k not in mine}
            rows = [self._embed(medium, one) for one in mine.values()]
            found = np.stack(rows) if rows else np.zeros((0, store.width), np.float32)
            store.write(list(mine), found, {**failed, **none})
        return {"count": len(item["clip_ids"])}

    def _read(self, clip: Clip) -> ClipMedia:
        whole = ClipShape(self.ingested.num_frames, self.ingested.fps, sample_rate=SAMPLE_RATE)
        shown = clip.media.height, clip.media.width
        return clip_media(clip, own_shape(shown, whole, LONGER_SIDE), self.copies)

    def _embed(self, medium: Medium, media: ClipMedia) -> Float32[ndarray, " d"]:
        if medium == "picture":
            assert self.picture is not None
            count = min(self.config.frames, len(media.frames))
            picked = np.linspace(0, len(media.frames) - 1, count).round().astype(int)
            found = self.picture.images(torch.from_numpy(media.frames[picked])).mean(dim=0)
        else:
            assert self.sound is not None
            found = self.sound.sounds(torch.from_numpy(media.samples.mean(axis=0))[None])[0]
        unit: Float32[ndarray, " d"] = torch.nn.functional.normalize(found, dim=0).cpu().numpy()
        return unit


@dataclass(frozen=True, slots=True)
class SemanticsCounts:
    """What a run has done."""

    clips: int
    embedded: dict[Medium, int]
    """Clips that have an embedding now, by medium."""
    skipped: dict[Medium, str]
    """Media without a model, and how to give one."""


@dataclass
class _Found:
    """Columns of one medium, one entry a clip; None where there is no embedding."""

    score: list[float | None]
    tags: list[list[str] | None]
    group: list[str | None]


def semantics(root: Path, config: SemanticsConfig, engine: Engine | None = None) -> SemanticsCounts:
    """Embeds what has not been embedded, then scores, tags and groups the kept clips.

    UsageError without any model, or without its weights or package; RunError when captions do not
    belong to their clips.
    """
    manifest = Manifest(root)
    clips, ingested = require_kept(manifest), _ingested(manifest)
    stores = {
        medium: store
        for medium in MEDIA
        if (store := config.store(root, medium, ingested.fingerprint)) is not None
    }
    skipped = {medium: _way(medium) for medium in MEDIA if medium not in stores}
    if not stores:
        raise UsageError(f"{root}: no model given; {_way('picture')}, {_way('sound')}")
    for medium, way in skipped.items():
        sys.stderr.write(f"{medium}: no model, its columns stay null; {way}\n")
    _embed(root, clips, config, stores, engine or Engine())
    found = {medium: _judged(store, clips, config) for medium, store in stores.items()}
    nothing: list[Any] = [None] * len(clips)
    picture = found.get("picture", _Found(nothing, nothing, nothing))
    sound = found.get("sound", _Found(nothing, nothing, nothing))
    rows = [
        SemanticsRow(clip.clip_id, Semantics(*columns))
        for clip, *columns in zip(
            clips,
            picture.score,
            sound.score,
            picture.tags,
            sound.tags,
            picture.group,
            sound.group,
            strict=True,
        )
    ]
    manifest.write_semantics(rows)
    manifest.reassemble()
    counts = {m: sum(one is not None for one in f.tags) for m, f in found.items()}
    return SemanticsCounts(len(clips), counts, skipped)


def _way(medium: str) -> str:
    kind = "an open_clip" if medium == "picture" else "a CLAP"
    return f"--set {medium}.path=DIR with {kind} model"


def _ingested(manifest: Manifest) -> IngestConfig:
    where = str(manifest.clips_file)
    return configuration.from_plain(IngestConfig, manifest.settings(), where)


def _embed(
    root: Path,
    clips: list[Clip],
    config: SemanticsConfig,
    stores: dict[Medium, Embeddings],
    engine: Engine,
) -> None:
    wanted = pa.array([clip.clip_id for clip in clips], pa.string())
    lacking = {
        medium: wanted.filter(pc.invert(pc.is_in(wanted, value_set=store.known())))
        for medium, store in stores.items()
    }
    stores = {medium: store for medium, store in stores.items() if len(lacking[medium])}
    todo = sorted({one for medium in stores for one in lacking[medium].to_pylist()})
    if not todo:
        return
    items = [{"clip_ids": todo[first : first + BATCH]} for first in range(0, len(todo), BATCH)]
    on_gpu = usable(config.device).type == "cuda" and not engine.inline
    answers = stream(engine, lambda: EmbedClips(root, config, stores), items, on_gpu=on_gpu)
    with progress("embed", len(todo)) as advance:
        for answer in answers:
            advance(by=answer["count"])


def _judged(store: Embeddings, clips: list[Clip], config: SemanticsConfig) -> _Found:
    medium, count = store.medium, len(clips)
    model = config.model(medium)
    assert model is not None
    opened = model.open(usable(config.device))
    places, media = store.read([clip.clip_id for clip in clips])
    found = _Found([None] * count, [None] * count, [None] * count)
    role = "video" if medium == "picture" else "audio"
    said = [getattr(clips[k].captions, role, None) for k in places]
    pairs = [(row, k, text) for row, (k, text) in enumerate(zip(places, said, strict=True)) if text]
    if pairs:
        texts = _texts(opened, [text for *_, text in pairs])
        mine = media[[row for row, *_ in pairs]]
        if config.guard:
            require_own(store.root, medium, mine, texts, [clips[k] for _, k, _ in pairs])
        for (_, k, _), score in zip(pairs, cosines(mine, texts), strict=True):
            found.score[k] = round(float(score), 6)
    classes = load_classes(config.picture_classes if medium == "picture" else config.sound_classes)
    names = _texts(opened, [TEMPLATES[medium].format(name) for name in classes.names])
    for k, tags in zip(places, nearest(media, names, classes.names, config.tags), strict=True):
        found.tags[k] = tags
    if config.alike is not None:
        _group(found, places, media, clips, config.alike)
    return found


def _group(
    found: _Found,
    places: list[int],
    media: Float32[ndarray, "n d"],
    clips: list[Clip],
    threshold: float,
) -> None:
    first = alike(media, threshold)
    members: dict[int, list[int]] = {}
    for row, one in enumerate(first.tolist()):
        members.setdefault(one, []).append(places[row])
    for group in members.values():
        if len(group) > 1:
            name = min(clips[k].clip_id for k in group)
            for k in group:
                found.group[k] = name


def _texts(model: ImageText | AudioText, texts: list[str]) -> Float32[ndarray, "n d"]:
    """Each different text once."""
    different = list(dict.fromkeys(texts))
    parts = [
        model.texts(different[first : first + TEXTS]).cpu().numpy()
        for first in range(0, len(different), TEXTS)
    ]
    at = {text: k for k, text in enumerate(different)}
    found: Float32[ndarray, "n d"] = np.concatenate(parts)[[at[text] for text in texts]]
    return found


def require_own(
    root: Path,
    medium: Medium,
    media: Float32[ndarray, "n d"],
    texts: Float32[ndarray, "n d"],
    clips: list[Clip],
) -> None:
    """RunError when captions belong to other clips; row k of both is of clip k.

    Templates say what many clips have in common, and are not tested.
    """
    role = "video" if medium == "picture" else "audio"
    said = [getattr(clip.captions, role) for clip in clips]
    templates = [getattr(template_captions(clip), role) for clip in clips]
    own = [k for k in range(len(clips)) if said[k] != templates[k]]
    captions = [said[k] for k in own]
    found = mismatches(media[own], texts[own], captions)
    if found:
        first = found[0]
        a, b = (clips[own[k]].clip_id for k in (first.first, first.last))
        raise RunError(
            f"{root}: {role} captions do not belong to their clips in {len(found)} blocks, the "
            f"first from clip {a} to {b}: {first.why}; remove captions/ and caption again, or set "
            "guard=false if the model is too weak to tell"
        )
