import pickle
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from avdata import config as configuration
from avdata.encoders.block_transform import BlockTransform
from avdata.encoders.choice import EncodersConfig
from avdata.encoders.hashed_tokens import HashedText
from avdata.encoders.oobleck import OobleckAudio
from avdata.encoders.t5 import T5Text, UMT5Text
from avdata.encoders.wan import WanVideo
from avdata.errors import ConfigError
from tests.encoders.checkpoints import oobleck, t5, umt5, wan22

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Whole:
    """A configuration that has encoders in it."""

    encoders: EncodersConfig = field(default_factory=EncodersConfig)


def load(*settings: str, file: Path | None = None) -> EncodersConfig:
    return configuration.load(Whole, file, settings).encoders


def test_by_default_no_weights_are_needed() -> None:
    assert load() == EncodersConfig()
    assert EncodersConfig().specs() == EncodersConfig().open(CPU).specs
    names = {spec.name for spec in (EncodersConfig().specs().video, EncodersConfig().specs().audio)}
    assert names == {"block-transform", "lapped-transform"}


def test_the_captions_of_each_role_have_a_spec_of_their_own() -> None:
    specs = EncodersConfig().specs()
    found = (specs.video_text.name, specs.audio_text.name)
    assert found == ("hashed-tokens-video", "hashed-tokens-audio")


@pytest.mark.parametrize("reverse", [False, True])
def test_an_encoder_is_chosen_by_its_kind_in_any_order_of_settings(reverse: bool) -> None:
    settings = [
        "encoders.video.kind=wan",
        "encoders.video.path=/models/wan",
        "encoders.video.dtype=bfloat16",
        "encoders.audio.kind=oobleck",
        "encoders.audio.path=some/vae",
        "encoders.audio.revision=abc",
        "encoders.video_text.kind=umt5",
        "encoders.video_text.path=/models/wan",
        "encoders.audio_text.kind=t5",
        "encoders.audio_text.path=/models/t5",
        "encoders.audio_text.max_tokens=32",
    ]
    assert load(*(settings[::-1] if reverse else settings)) == EncodersConfig(
        video=WanVideo("/models/wan", dtype="bfloat16"),
        audio=OobleckAudio("some/vae", revision="abc"),
        video_text=UMT5Text("/models/wan"),
        audio_text=T5Text("/models/t5", max_tokens=32),
    )


def test_a_file_may_choose_and_what_was_chosen_reads_back(tmp_path: Path) -> None:
    file = tmp_path / "encode.yaml"
    file.write_text("encoders:\n  video: {kind: wan, path: wan, tiled: true}\n")
    chosen = load("encoders.video.subfolder=vae", file=file)
    assert chosen.video == WanVideo("wan", tiled=True, subfolder="vae")
    assert chosen.audio_text == HashedText()
    plain = configuration.to_plain(chosen)
    assert configuration.from_plain(EncodersConfig, plain, "itself") == chosen


def test_a_choice_travels_to_other_processes() -> None:
    chosen = EncodersConfig(video=WanVideo("wan"), audio_text=T5Text("t5", max_tokens=9))
    assert pickle.loads(pickle.dumps(chosen)) == chosen


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["encoders.vidio.kind=wan"], "did you mean encoders.video?"),
        (["encoders.video.kind=wna"], "'block-transform', 'wan'"),
        (["encoders.video.kind=wan"], "encoders.video.wan.path"),
        (["encoders.video.kind=wan", "encoders.video.path=a", "encoders.video.pth=b"], "wan.pth"),
        (["encoders.video.path=a"], "encoders.video.block-transform.path"),
        (["encoders.audio_text.max_tokens=9"], "encoders.audio_text.hashed-tokens.max_tokens"),
        (
            ["encoders.video.kind=wan", "encoders.video.path=a", "encoders.video.dtype=float16"],
            "'float32' or 'bfloat16'",
        ),
        (
            [f"encoders.video_text.{one}" for one in ("kind=t5", "path=a", "max_tokens=1")],
            "max_tokens must be 2 or more, not 1",
        ),
    ],
)
def test_what_cannot_be_chosen_is_refused(settings: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(*settings)
    assert said in str(caught.value)


def test_all_four_open_and_are_what_was_told(tmp_path: Path) -> None:
    wan22(tmp_path / "wan" / "vae")
    umt5(tmp_path / "wan")
    oobleck(tmp_path / "oobleck")
    t5(tmp_path / "t5")
    chosen = EncodersConfig(
        video=WanVideo(str(tmp_path / "wan")),
        audio=OobleckAudio(str(tmp_path / "oobleck")),
        video_text=UMT5Text(str(tmp_path / "wan")),
        audio_text=T5Text(str(tmp_path / "t5")),
    )
    specs = chosen.open(CPU).specs
    assert specs == chosen.specs()
    found = [specs.video.name, specs.audio.name, specs.video_text.name, specs.audio_text.name]
    assert found == ["wan", "oobleck", "umt5", "t5"]
    mixed = EncodersConfig(video=BlockTransform(), audio=chosen.audio)
    assert mixed.open(CPU).specs.video == EncodersConfig().specs().video
