"""Captions of real clips by tiny random models in this process."""

import dataclasses
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from avdata.encoders.multimodal_lm import MultimodalLM
from avdata.errors import UsageError, YieldCollapsed
from avdata.jobs.caption import caption
from avdata.jobs.caption_config import CaptionConfig
from avdata.jobs.engine import Engine
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.record import Captions
from tests.encoders.captioners import llava, omni, qwen2_audio
from tests.jobs.films import run

INLINE = Engine(inline=True)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> CaptionConfig:
    root = tmp_path_factory.mktemp("captioners")
    for make in (llava, qwen2_audio, omni):
        make(root / make.__name__)
    return CaptionConfig(
        video=MultimodalLM(str(root / "llava"), max_tokens=80),
        audio=MultimodalLM(str(root / "qwen2_audio"), max_tokens=80),
        joint=MultimodalLM(str(root / "omni"), max_tokens=80),
        frames=2,
        longer_side=64,
        threads=2,
        device="cpu",
    )


@pytest.fixture
def films(manifest: Path, tmp_path: Path) -> Manifest:
    shutil.copytree(manifest, tmp_path / "m")
    return Manifest(tmp_path / "m")


def captions(films: Manifest) -> dict[str, Captions | str | None]:
    return {clip.clip_id: clip.captions or clip.caption_failure for clip in films.clips()}


def captioned(films: Manifest, config: CaptionConfig) -> int:
    """Clips that got captions. Of a random model that may be none, which is an error."""
    try:
        return caption(films.root, config, INLINE).captioned
    except YieldCollapsed:
        return 0


def answers(films: Manifest) -> dict[Path, int]:
    files = (films.root / "captions").rglob("*.parquet")
    return {file: pq.read_metadata(file).num_rows for file in files}


def test_every_clip_ends_with_its_captions_or_a_reason(
    films: Manifest, config: CaptionConfig
) -> None:
    before = captions(films)
    with_captions = captioned(films, config)
    found, asked = captions(films), answers(films)
    assert sum(asked.values()) == 3 * len(found)
    assert found.keys() == before.keys()
    for one in found.values():
        if isinstance(one, Captions):
            assert one.model == "llava and qwen2_audio"
            assert one.joint is not None
            assert one.joint.model == "omni"
            assert (one.joint.text is None) != (one.joint.reason is None)
        else:
            assert one in {
                f"{role}:{why}" for role in ("video", "audio") for why in ("empty", "cut_off")
            }
    assert with_captions == sum(isinstance(one, Captions) for one in found.values())
    assert captioned(films, config) == with_captions
    assert answers(films) == asked
    shutil.rmtree(films.root / "captions")
    assert captioned(films, config) == with_captions
    assert captions(films) == found
    assert answers(films) == asked


def test_a_model_that_cannot_hear_is_refused_for_sounds(
    films: Manifest, config: CaptionConfig
) -> None:
    deaf = dataclasses.replace(config, audio=config.video)
    with pytest.raises(UsageError, match="and no audio"):
        caption(films.root, deaf, INLINE)


def test_the_command_takes_a_folder(films: Manifest, config: CaptionConfig) -> None:
    assert isinstance(config.audio, MultimodalLM)
    settings = ["audio.kind=transformers", f"audio.path={config.audio.path}", "device=cpu"]
    options = [x for one in settings for x in ("--set", one)]
    code = run("caption", films.root, "--inline", *options)
    found = captions(films).values()
    assert code == (0 if any(isinstance(one, Captions) for one in found) else 3)
    for one in found:
        if isinstance(one, Captions):
            assert one.model == "template and qwen2_audio"
        else:
            assert one in {"audio:empty", "audio:cut_off"}
    assert run("caption", films.root, "--set", "audio.kind=transformers") == 2
    assert run("caption", films.root, "--set", "joint.kind=template") == 2
