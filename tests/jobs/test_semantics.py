"""Embeddings, scores and tags of real clips, by tiny random models."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from avdata.encoders.clap import Clap, OpenClap
from avdata.encoders.clip import OpenClip, OpenedClip
from avdata.errors import RunError, UsageError, YieldCollapsed
from avdata.jobs.ask import ingested
from avdata.jobs.caption import caption
from avdata.jobs.engine import Engine
from avdata.jobs.semantics import semantics
from avdata.jobs.semantics_config import SemanticsConfig
from avdata.jobs.verify import verify
from avdata.pipeline import semantics as numbers
from avdata.pipeline.manifest import CaptionRow, Manifest
from avdata.pipeline.record import Captions
from avdata.pipeline.semantics import MEDIA, load_classes
from avdata.pipeline.shards.decoders import DecodeLimits
from avdata.pipeline.text_embeddings import TEXTS
from tests.encoders.embedders import clap_model, open_clip_model
from tests.jobs.films import run

pytest.importorskip("open_clip", reason="needs the extra clip")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
INLINE = Engine(inline=True)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> SemanticsConfig:
    folder = tmp_path_factory.mktemp("models")
    open_clip_model(folder / "clip")
    clap_model(folder / "clap")
    return SemanticsConfig(
        picture=OpenClip(str(folder / "clip")),
        sound=Clap(str(folder / "clap")),
        frames=2,
        device="cpu",
    )


@pytest.fixture
def films(manifest: Path, tmp_path: Path) -> Manifest:
    shutil.copytree(manifest, tmp_path / "m")
    return Manifest(tmp_path / "m")


def files(manifest: Manifest) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in (manifest.root / "embeddings").rglob("*.parquet")}


def test_clips_are_embedded_once_scored_and_tagged(
    films: Manifest, config: SemanticsConfig
) -> None:
    kept = len(films.clips("keep"))
    counts = semantics(films.root, config, INLINE)
    assert counts.embedded == {"picture": kept, "sound": kept}
    assert counts.skipped == {}
    names = set(load_classes().names)
    for clip in films.clips("keep"):
        one = clip.semantics
        assert one is not None
        for score, tags in ((one.image_text, one.picture_tags), (one.audio_text, one.sound_tags)):
            assert score is not None
            assert -1 <= score <= 1
            assert tags is not None
            assert len(set(tags)) == 3
            assert set(tags) <= names
    before, bytes_before = files(films), films.clips_file.read_bytes()
    assert semantics(films.root, config, INLINE) == counts
    assert files(films) == before
    assert films.clips_file.read_bytes() == bytes_before
    next(iter(before)).unlink()
    semantics(films.root, config, INLINE)
    assert set(files(films)) == set(before)
    assert films.clips_file.read_bytes() == bytes_before


def test_only_texts_that_no_run_has_embedded_are_asked_for(
    films: Manifest, config: SemanticsConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    for model in (OpenedClip, OpenClap):
        monkeypatch.setattr(model, "texts", _noted(model.texts, asked))
    semantics(films.root, config, INLINE)
    clips = films.clips("keep")
    said = {x for one in clips if one.captions for x in (one.captions.video, one.captions.audio)}
    assert said <= set(asked)
    assert len(asked) == 2 * len(load_classes().names) + len(said)
    assert verify(films.root)["captions compared with clips"] == 2 * len(clips)
    before, bytes_before = films.clips_file.read_bytes(), files(films)
    asked.clear()
    semantics(films.root, config, INLINE)
    assert asked == []
    assert (films.clips_file.read_bytes(), files(films)) == (before, bytes_before)
    first = [CaptionRow(one.clip_id, one.captions) for one in clips]
    new = [dataclasses.replace(first[0], captions=Captions("x", "y", "m", "0")), *first[1:]]
    for rows, expected in ((new, ["x", "y"]), (first, [])):
        asked.clear()
        films.write_captions(rows)
        films.reassemble()
        semantics(films.root, config, INLINE)
        assert asked == expected
    assert films.clips_file.read_bytes() == before


def _noted(
    texts: Callable[[Any, list[str]], torch.Tensor], asked: list[str]
) -> Callable[[Any, list[str]], torch.Tensor]:
    def noted(model: object, some: list[str]) -> torch.Tensor:
        asked.extend(some)
        return texts(model, some)

    return noted


def test_picture_and_sound_are_compared_through_the_classes_that_both_have(
    films: Manifest, config: SemanticsConfig, tmp_path: Path
) -> None:
    semantics(films.root, config, INLINE)
    first = {clip.clip_id: clip.semantics for clip in films.clips("keep")}
    for one in first.values():
        assert one is not None
        assert one.audio_visual is not None
        assert 0 < one.audio_visual <= 1
        assert one.music_bed is not None
        assert one.coupling in {"tight", "loose", None}
    # Over fewer classes the score is another; over none in common there is none.
    names = load_classes().names
    expected = {"more": (*names[:40], "a crowd"), "none": ("a crowd", "a car", "a river")}
    for name, classes in expected.items():
        file = tmp_path / f"{name}.txt"
        file.write_text("\n".join(classes))
        semantics(films.root, dataclasses.replace(config, picture_classes=file), INLINE)
        for clip in films.clips("keep"):
            one, before = clip.semantics, first[clip.clip_id]
            assert one is not None
            assert before is not None
            assert one.audio_text == before.audio_text
            assert (one.audio_visual is None) == (name == "none")
            assert one.audio_visual != before.audio_visual
            if clip.labels.music:  # These tags say nothing of who makes it.
                assert one.music_bed in {None, False}


def test_a_rule_about_meaning_decides_the_same_however_often_it_runs(
    films: Manifest, config: SemanticsConfig, tmp_path: Path
) -> None:
    semantics(films.root, config, INLINE)
    scores = sorted(one.semantics.image_text or 0 for one in films.clips() if one.semantics)
    middle = scores[len(scores) // 2]
    policy = tmp_path / "policy.yaml"
    policy.write_text(f"rules:\n  unlike: semantics.image_text < {middle}\n")
    films.set_policy(policy)
    films.decide_again()
    dropped = {one.clip_id: one.reasons for one in films.clips("drop")}
    assert 0 < len(dropped) < len(scores)
    assert set(map(tuple, dropped.values())) == {("unlike",)}
    before = films.clips_file.read_bytes()
    for _ in range(2):
        semantics(films.root, config, INLINE)
        assert films.clips_file.read_bytes() == before
    caption(films.root)
    semantics(films.root, config, INLINE)
    assert films.clips_file.read_bytes() == before


def test_what_ran_out_of_time_is_embedded_by_the_next_run(
    films: Manifest, config: SemanticsConfig
) -> None:
    short = dataclasses.replace(config, limits=DecodeLimits(deadline_s=1e-6))
    with pytest.raises(YieldCollapsed, match=r"none of .* clips has an embedding"):
        semantics(films.root, dataclasses.replace(short, max_failed_share=1.0), INLINE)
    for clip in films.clips("keep"):
        assert clip.semantics is not None
        assert clip.semantics.image_text is None
        assert clip.semantics.audio_visual is None
        assert clip.semantics.picture_tags is None
    counts = semantics(films.root, config, INLINE)
    assert counts.embedded == {"picture": counts.clips, "sound": counts.clips}


def test_what_crashed_its_decoder_is_embedded_once_that_is_asked_for(
    films: Manifest, config: SemanticsConfig
) -> None:
    lost = {clip.clip_id: "decoder_crashed" for clip in films.clips("keep")}
    for medium in MEDIA:
        store = config.store(films.root, medium, ingested(films).fingerprint)
        assert store is not None
        store.write([], np.zeros((0, store.width), np.float32), lost)
    with pytest.raises(RunError, match=r"\(decoder_crashed\).*retry_failed=true"):
        semantics(films.root, config, INLINE)
    again = dataclasses.replace(config, retry_failed=True)
    assert semantics(films.root, again, INLINE).embedded == {one: len(lost) for one in MEDIA}
    made = files(films)
    semantics(films.root, again, INLINE)
    assert files(films) == made


def test_in_batches_by_workers_of_ray_embeddings_are_the_same(
    films: Manifest, config: SemanticsConfig
) -> None:
    semantics(films.root, config, INLINE)
    alone = {path: pq.read_table(path) for path in files(films)}
    shutil.rmtree(films.root / "embeddings")
    together = dataclasses.replace(config, batch_size=3)
    semantics(films.root, together, Engine(workers=1))
    assert set(files(films)) == set(alone)
    for path, before in alone.items():
        after = pq.read_table(path)
        assert after.column(0).equals(before.column(0))  # Of which clips, or texts.
        one, other = (np.array(table["embedding"].to_pylist()) for table in (before, after))
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_too_little_memory_of_the_device_names_what_to_set(
    films: Manifest, config: SemanticsConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("avdata.encoders.clip.OpenedClip.images", full)
    small = dataclasses.replace(config, sound=None, batch_size=3)
    with pytest.raises(RunError, match=r"2\.00 GiB.*less than 3, fewer frames, or picture\.dtype"):
        semantics(films.root, small, INLINE)


def test_too_little_memory_for_texts_names_what_to_set_and_keeps_what_is_made(
    films: Manifest, config: SemanticsConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once, given = 50, list[int]()
    ask = OpenedClip.texts

    def full(self: OpenedClip, texts: list[str]) -> torch.Tensor:
        given.append(len(texts))
        if sum(given) > TEXTS + at_once:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return ask(self, texts)

    monkeypatch.setattr(OpenedClip, "texts", full)
    one = dataclasses.replace(config, sound=None, text_batch_size=at_once)
    with pytest.raises(
        RunError, match=r"2\.00 GiB.*text_batch_size to less than 50, or device=cpu"
    ):
        semantics(films.root, one, INLINE)
    assert max(given) == at_once
    (kept,) = (films.root / "embeddings").glob("picture-text-*/*.parquet")
    assert pq.read_metadata(kept).num_rows == TEXTS


def test_scores_go_with_the_captions_they_are_of(films: Manifest, config: SemanticsConfig) -> None:
    semantics(films.root, config, INLINE)
    films.write_captions(
        [CaptionRow(one.clip_id, Captions("x", "y", "m", "0")) for one in films.clips("keep")]
    )
    films.reassemble()
    assert {clip.semantics for clip in films.clips()} == {None}
    caption(films.root)
    assert None not in {clip.semantics and clip.clip_id for clip in films.clips("keep")}


def test_without_a_model_columns_are_null_and_the_way_is_said_once(
    films: Manifest, config: SemanticsConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match=r"no model given; --set picture\.path=DIR"):
        semantics(films.root, SemanticsConfig(), INLINE)
    capsys.readouterr()
    counts = semantics(films.root, dataclasses.replace(config, sound=None), INLINE)
    assert list(counts.skipped) == ["sound"]
    assert capsys.readouterr().err.count("sound: no model, its columns stay null") == 1
    for clip in films.clips("keep"):
        assert clip.semantics is not None
        assert clip.semantics.image_text is not None
        assert clip.semantics.audio_text is None
        assert clip.semantics.audio_visual is None
        assert clip.semantics.sound_tags is None
        assert clip.semantics.coupling is None
    semantics(films.root, config, INLINE)
    before = films.clips_file.read_bytes()
    with pytest.raises(UsageError, match=r"would erase its columns; --set sound\.path=DIR"):
        semantics(films.root, dataclasses.replace(config, sound=None), INLINE)
    assert films.clips_file.read_bytes() == before
    (films.root / "semantics.parquet").unlink()
    semantics(films.root, dataclasses.replace(config, sound=None), INLINE)
    assert {clip.semantics and clip.semantics.sound_tags for clip in films.clips()} == {None}
    missing = dataclasses.replace(config, picture=OpenClip(str(films.root / "none")))
    with pytest.raises(UsageError, match="hf download laion"):
        semantics(films.root, missing, INLINE)


def test_clips_that_mean_the_same_share_a_group(films: Manifest, config: SemanticsConfig) -> None:
    semantics(films.root, dataclasses.replace(config, alike=0.01), INLINE)
    kept = films.clips("keep")
    groups = {clip.semantics.picture_group for clip in kept if clip.semantics}
    assert groups == {min(clip.clip_id for clip in kept)}  # Of random models all look the same.
    (films.root / "policy.yaml").write_text("rules: {same: semantics.picture_best == false}")
    for _ in range(2):  # However often it runs.
        films.reassemble()
        assert len(films.clips("keep")) == 1 < len(kept)
        semantics(films.root, dataclasses.replace(config, alike=0.01), INLINE)


def test_captions_that_belong_to_others_stop_the_run(
    films: Manifest, config: SemanticsConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what a random model says of its captions, own ones are no better than others'."""
    monkeypatch.setattr(numbers, "MIN_PAIRS", 2)
    clips = films.clips("keep")
    rows = [
        CaptionRow(clip.clip_id, Captions(f"video {k}", f"audio {k * k}", "model", "0"))
        for k, clip in enumerate(clips)
    ]
    films.write_captions(rows)
    films.reassemble()
    with pytest.raises(RunError, match="captions do not belong to their clips in 1 blocks"):
        semantics(films.root, config, INLINE)
    assert {clip.semantics for clip in films.clips()} == {None}
    semantics(films.root, dataclasses.replace(config, guard=False), INLINE)
    assert None not in {clip.semantics and clip.clip_id for clip in films.clips("keep")}
    assert "captions compared with clips" not in verify(films.root)


def test_the_command_takes_two_folders(
    films: Manifest, config: SemanticsConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert config.picture is not None
    assert config.sound is not None
    places = [f"picture.path={config.picture.path}", f"sound.path={config.sound.path}"]
    options = [x for one in places for x in ("--set", one)]
    assert run("semantics", films.root, "--inline", "--json", *options) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["embedded"] == {"picture": told["clips"], "sound": told["clips"]}
