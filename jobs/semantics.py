"""`avdata semantics`: what CLIP and CLAP make of the kept clips of a manifest.

Pictures and sounds are embedded once by workers, texts once by this process, and kept beside the
manifest. Scores of captions, tags, groups of clips that mean the same and hints of provenance are
made of them in this process, again with every run.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from avdata import config as configuration
from avdata.encoders.device import usable, within_memory
from avdata.errors import UsageError, YieldCollapsed
from avdata.jobs.ask import ingested
from avdata.jobs.embed import embed
from avdata.jobs.engine import Engine
from avdata.jobs.semantics_config import SemanticsConfig
from avdata.pipeline.coupling import coupling
from avdata.pipeline.embeddings import Embeddings
from avdata.pipeline.guard import keep_asked
from avdata.pipeline.manifest import Manifest, SemanticsRow
from avdata.pipeline.meaning import Meaning, Wanted, audio_visual, meaning
from avdata.pipeline.provenance import hints, tells
from avdata.pipeline.record import Clip, Semantics
from avdata.pipeline.selection import require_meaningful
from avdata.pipeline.semantics import MEDIA, Medium

SMALLER = (
    "set text_batch_size to less than {}, or device=cpu; clips and texts that are embedded stay so"
)


@dataclass(frozen=True, slots=True)
class SemanticsCounts:
    """What a run has done."""

    clips: int
    embedded: dict[Medium, int]
    """Clips that have an embedding now, by medium."""
    skipped: dict[Medium, str]
    """Media without a model, and how to give one."""


def semantics(root: Path, config: SemanticsConfig, engine: Engine | None = None) -> SemanticsCounts:
    """Embeds what has not been embedded, then scores, tags and groups the kept clips.

    UsageError without any model, without its weights or package, or with one medium's alone where
    both have columns; RunError when captions do not
    belong to their clips or many clips cannot be decoded; YieldCollapsed without any embedding.
    """
    with Manifest(root).alone():
        return _semantics(root, config, engine or Engine())


def _semantics(root: Path, config: SemanticsConfig, engine: Engine) -> SemanticsCounts:
    manifest = Manifest(root)
    clips, fingerprint = require_meaningful(manifest), ingested(manifest).fingerprint
    stores = {
        medium: store
        for medium in MEDIA
        if (store := config.store(root, medium, fingerprint)) is not None
    }
    skipped = {medium: _way(medium) for medium in MEDIA if medium not in stores}
    if not stores:
        raise UsageError(f"{root}: no model given; {_way('picture')}, {_way('sound')}")
    _require_none_lost(manifest, skipped)
    for medium, way in skipped.items():
        sys.stderr.write(f"{medium}: no model, its columns stay null; {way}\n")
    embed(root, clips, config, stores, engine)
    # This process may be far from the GPUs of a cluster, and has no need of them.
    far = engine.address is not None and config.device != "cpu"
    device = "auto" if far else config.device
    found = {one: _meaning(store, clips, config, device) for one, store in stores.items()}
    rows = _rows(clips, found, config)
    manifest.write_semantics(rows)
    asked = {medium: (stores[medium], one.texts) for medium, one in found.items()}
    keep_asked(root, configuration.to_plain(config), asked)
    manifest.reassemble()
    counts: dict[Medium, int] = {medium: len(one.places) for medium, one in found.items()}
    if not any(counts.values()):
        raise YieldCollapsed(
            f"{root}: none of {len(clips)} clips has an embedding; see to their sources and run it "
            "again with retry_failed=true"
        )
    return SemanticsCounts(len(clips), counts, skipped)


def _require_none_lost(manifest: Manifest, skipped: dict[Medium, str]) -> None:
    """Some columns are made of both media, and all of one run: none is kept from another."""
    known, file = manifest.table(["semantics"])["semantics"], manifest.root / "semantics.parquet"
    for medium, way in skipped.items():
        tags = pc.struct_field(known, f"{medium}_tags")
        if file.exists() and tags.null_count < len(tags):
            raise UsageError(
                f"{manifest.root}: a run without a model for {medium} would erase its columns; "
                f"{way}, too (what is embedded is not embedded again), or remove {file}"
            )


def _way(medium: str) -> str:
    kind = "an open_clip" if medium == "picture" else "a CLAP"
    return f"--set {medium}.path=DIR with {kind} model"


def _meaning(store: Embeddings, clips: list[Clip], config: SemanticsConfig, device: str) -> Meaning:
    model = config.model(store.medium)
    assert model is not None
    wanted = Wanted(
        config.classes(store.medium),
        config.tags,
        config.alike,
        config.guard,
        config.text_batch_size,
    )
    with within_memory(SMALLER.format(config.text_batch_size)):
        return meaning(store, model.open(usable(device)), clips, wanted)


def _rows(
    clips: list[Clip], found: dict[Medium, Meaning], config: SemanticsConfig
) -> list[SemanticsRow]:
    picture, sound = found.get("picture"), found.get("sound")
    agreed = audio_visual(picture, sound) if picture and sound else [None] * len(clips)
    names = {medium: config.classes(medium).names for medium in MEDIA}
    telling = {medium: tells(names[medium]) for medium in MEDIA}
    rows = []
    for k, clip in enumerate(clips):
        seen, heard = (one.tags[k] if one else None for one in (picture, sound))
        hinted = hints(
            clip, seen if telling["picture"] else None, heard if telling["sound"] else None
        )
        semantics = Semantics(
            image_text=picture.score[k] if picture else None,
            audio_text=sound.score[k] if sound else None,
            audio_visual=agreed[k],
            picture_tags=seen,
            sound_tags=heard,
            picture_group=picture.group[k] if picture else None,
            sound_group=sound.group[k] if sound else None,
            coupling=coupling(heard, names["sound"]),
            music_bed=hinted.music_bed,
            voice_over=hinted.voice_over,
        )
        rows.append(SemanticsRow(clip.clip_id, semantics))
    return rows
