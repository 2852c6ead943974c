"""The guard asked again, of kept embeddings and the captions of now."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from avdata.errors import RunError
from avdata.pipeline.captions import template_captions
from avdata.pipeline.embeddings import Embeddings
from avdata.pipeline.guard import FILE, ask_again, keep_asked, require_own
from avdata.pipeline.manifest import CaptionRow, Manifest
from avdata.pipeline.record import Captions, Clip
from avdata.pipeline.semantics import MEDIA, Medium
from avdata.pipeline.text_embeddings import TextEmbeddings
from tests.pipeline.clips import a_clip, assemble, write_parts
from tests.pipeline.test_semantics import pairs, unit
from tests.pipeline.test_text_embeddings import Told

COUNT, WIDTH = 64, 32


def kept(root: Path, guard: bool = True) -> tuple[Manifest, list[Clip]]:
    """A manifest whose clips and captions are weakly alike, as `avdata semantics` leaves it."""
    manifest, names = Manifest(root), [f"{k}.mp4" for k in range(COUNT)]
    clips = [a_clip(name, captions=None) for name in names]
    write_parts(manifest, clips, [])
    manifest.set_policy(None)
    assemble(manifest, names)
    clips = manifest.clips()
    said = [Captions(f"video {k}", f"audio {k}", "model", "0") for k in range(COUNT)]
    clips = [dataclasses.replace(one, captions=own) for one, own in zip(clips, said, strict=True)]
    caption(manifest, clips)
    stores: dict[Medium, tuple[Embeddings, TextEmbeddings]] = {}
    for medium, role in zip(MEDIA, ("video", "audio"), strict=True):
        media, texts = pairs(COUNT, seed=len(role))
        stores[medium] = (
            Embeddings(root, medium, "media", WIDTH),
            TextEmbeddings(root, medium, "texts", WIDTH),
        )
        stores[medium][0].write([one.clip_id for one in clips], media, {})
        own = {getattr(one, role): row for one, row in zip(said, texts, strict=True)}
        stores[medium][1].add(list(own), Told(own), 10)
    keep_asked(root, {"guard": guard}, stores)
    return manifest, clips


def caption(manifest: Manifest, clips: list[Clip]) -> None:
    manifest.write_captions([CaptionRow(one.clip_id, one.captions) for one in clips])
    manifest.reassemble()


def moved(clips: list[Clip], by: int) -> list[Clip]:
    others = [*clips[by:], *clips[:by]]
    return [
        dataclasses.replace(one, captions=other.captions)
        for one, other in zip(clips, others, strict=True)
    ]


def test_captions_of_the_next_clip_stop_the_run_and_own_ones_do_not(tmp_path: Path) -> None:
    g = np.random.default_rng(0)
    media, noise = (unit(g.normal(size=(64, 16)).astype(np.float32)) for _ in range(2))
    texts = unit(media + noise)
    said = [Captions(f"video {k}", f"audio {k}", "model", "0") for k in range(64)]
    clips = [a_clip(start_s=float(k), captions=one) for k, one in enumerate(said)]
    require_own(tmp_path, "picture", media, texts, clips)
    with pytest.raises(RunError, match="video captions do not belong"):
        require_own(tmp_path, "picture", media, np.roll(texts, 1, axis=0), clips)
    templates = [dataclasses.replace(one, captions=template_captions(one)) for one in clips]
    require_own(tmp_path, "picture", media, np.roll(texts, 1, axis=0), templates)


def test_captions_that_have_moved_since_are_found_without_a_model(tmp_path: Path) -> None:
    manifest, clips = kept(tmp_path)
    assert ask_again(manifest) == (2 * COUNT, [])
    caption(manifest, moved(clips, 1))
    asked = ask_again(manifest)
    assert asked is not None
    for role, found in zip(("video", "audio"), asked[1], strict=True):
        assert found.startswith(f"{role} captions do not belong to their clips in 1 blocks")


def test_captions_that_are_new_are_not_compared(tmp_path: Path) -> None:
    manifest, clips = kept(tmp_path)
    new = [dataclasses.replace(one, captions=Captions("x", "y", "m", "0")) for one in clips[:10]]
    caption(manifest, [*new, *clips[10:]])
    assert ask_again(manifest) == (2 * (COUNT - 10), [])


def test_nothing_is_asked_where_the_run_was_not(tmp_path: Path) -> None:
    manifest, clips = kept(tmp_path, guard=False)
    caption(manifest, moved(clips, 1))
    assert ask_again(manifest) is None
    (tmp_path / FILE).unlink()
    assert ask_again(manifest) is None


@pytest.mark.parametrize("text", ["{}", '{"config": {"guard": true}, "embeddings": 3}'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    manifest, _ = kept(tmp_path)
    (tmp_path / FILE).write_text(text)
    with pytest.raises(RunError, match=rf"{FILE}: not what .avdata semantics. writes.*again"):
        ask_again(manifest)
