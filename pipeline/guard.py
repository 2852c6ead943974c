"""The guard: whether captions belong to their clips, by embeddings of both.

`avdata semantics` asks it before anything is written, and leaves beside the manifest which
embeddings it asked of, so that it can be asked again without a model, of what the captions are now:

    DIR/semantics.json    settings, versions, and by medium the fingerprints and width of embeddings
"""

from pathlib import Path
from typing import Any

from jaxtyping import Float32
from numpy import ndarray

from avdata import storage
from avdata.errors import RunError
from avdata.pipeline.captions import template_captions
from avdata.pipeline.embeddings import Embeddings
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.record import Clip
from avdata.pipeline.semantics import MEDIA, Medium, mismatches
from avdata.pipeline.text_embeddings import TextEmbeddings
from avdata.versions import versions

FILE = "semantics.json"


def require_own(
    root: Path,
    medium: Medium,
    media: Float32[ndarray, "n d"],
    texts: Float32[ndarray, "n d"],
    clips: list[Clip],
) -> None:
    """RunError when captions belong to other clips; row k of both is of clip k."""
    found = strangers(medium, media, texts, clips)
    if found is not None:
        raise RunError(
            f"{root}: {found}; remove captions/ and caption again, or set guard=false if the model "
            "is too weak to tell"
        )


def strangers(
    medium: Medium,
    media: Float32[ndarray, "n d"],
    texts: Float32[ndarray, "n d"],
    clips: list[Clip],
) -> str | None:
    """Which clips have the captions of others, in words; row k of both is of clip k.

    Templates say what many clips have in common, and are not tested.
    """
    role = _role(medium)
    said = [getattr(clip.captions, role) for clip in clips]
    templates = [getattr(template_captions(clip), role) for clip in clips]
    own = [k for k in range(len(clips)) if said[k] != templates[k]]
    captions = [said[k] for k in own]
    sources = [clips[k].source.digest for k in own]
    found = mismatches(media[own], texts[own], captions, sources)
    if not found:
        return None
    first = found[0]
    a, b = (clips[own[k]].clip_id for k in (first.first, first.last))
    return (
        f"{role} captions do not belong to their clips in {len(found)} blocks, the first from clip "
        f"{a} to {b}: {first.why}"
    )


def said_of(clip: Clip, medium: Medium) -> str | None:
    """The caption of what the medium shows."""
    said: str | None = getattr(clip.captions, _role(medium), None)
    return said


def keep_asked(
    root: Path, config: dict[str, Any], stores: dict[Medium, tuple[Embeddings, TextEmbeddings]]
) -> None:
    """Leaves what the guard is asked of; `config` are the settings, `guard` among them."""
    asked = {
        medium: {
            "clips": media.fingerprint,
            "texts": texts.fingerprint,
            "width": media.width,
        }
        for medium, (media, texts) in stores.items()
    }
    told = {"config": config, "embeddings": asked, "versions": versions()}
    storage.write_json(root / FILE, told)


def ask_again(manifest: Manifest) -> tuple[int, list[str]] | None:
    """How many captions could be compared with their clips, and what is wrong; None where
    `avdata semantics` has not been run, or with `guard=false`.

    A caption that has changed since has no embedding yet, and is not compared.
    """
    root, file = manifest.root, manifest.root / FILE
    if not file.exists():
        return None
    plain = storage.read_json(file)
    try:
        if not plain["config"]["guard"]:
            return None
        stores = {
            medium: (
                Embeddings(root, medium, told["clips"], told["width"]),
                TextEmbeddings(root, medium, told["texts"], told["width"]),
            )
            for medium in MEDIA
            if (told := plain["embeddings"].get(medium)) is not None
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise RunError(
            f"{file}: not what `avdata semantics` writes ({error!r}); run it again"
        ) from error
    clips, count, problems = manifest.clips(), 0, []
    for media, texts in stores.values():
        compared, found = _compared(media, texts, clips)
        count += compared
        problems += [] if found is None else [found]
    return count, problems


def _compared(
    media: Embeddings, texts: TextEmbeddings, clips: list[Clip]
) -> tuple[int, str | None]:
    captioned = [clip for clip in clips if said_of(clip, media.medium)]
    seen, rows = media.read([clip.clip_id for clip in captioned])
    embedded = [captioned[k] for k in seen]
    known, words = texts.read([said_of(clip, media.medium) or "" for clip in embedded])
    found = strangers(media.medium, rows[known], words, [embedded[k] for k in known])
    return len(known), found


def _role(medium: Medium) -> str:
    return "video" if medium == "picture" else "audio"
