"""Where weights are looked for, and what is said when they are not what they should be."""

import json
import re
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from avdata.encoders.oobleck import OobleckAudio
from avdata.encoders.t5 import T5Text, UMT5Text
from avdata.encoders.wan import WanVideo
from avdata.errors import UsageError
from tests.encoders.checkpoints import oobleck, t5, umt5, wan21, wan22

CPU = torch.device("cpu")
VAE, T5 = "diffusion_pytorch_model.safetensors", "model.safetensors"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
Config = WanVideo | OobleckAudio | UMT5Text | T5Text


def pipeline(root: Path) -> list[Config]:
    """One of each, in the folders of diffusers' pipelines where they have them."""
    wan22(root / "wan" / "vae")
    oobleck(root / "oobleck" / "vae")
    umt5(root / "wan")
    t5(root / "t5")
    wan = str(root / "wan")
    places = (WanVideo(wan), OobleckAudio(str(root / "oobleck")), UMT5Text(wan))
    return [*places, T5Text(str(root / "t5"))]


def weights_of(config: Config) -> Path:
    folders = {"wan": "vae", "oobleck": "vae", "umt5": "text_encoder", "t5": "."}
    name = VAE if folders[config.kind] == "vae" else T5
    return Path(config.path) / folders[config.kind] / name


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def refused(config: Config) -> str:
    with pytest.raises(UsageError) as caught:
        config.open(CPU)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_one_weight_more_or_less_is_another_digest(tmp_path: Path) -> None:
    for config in pipeline(tmp_path):
        file, before = weights_of(config), config.spec()
        assert config.spec() == before
        state = load_file(file)
        name = sorted(state)[0]
        state[name].view(-1)[0] += 1
        save_file(state, file, metadata={"format": "pt"})
        after = config.spec()
        assert after.digest != before.digest
        assert after.name == before.name == config.kind
        assert config.open(CPU).spec == after


def test_the_same_files_elsewhere_are_the_same_encoder(tmp_path: Path) -> None:
    wan22(tmp_path / "one" / "vae")
    wan22(tmp_path / "two")
    wan22(tmp_path / "three" / "odd")
    configs = [
        WanVideo(str(tmp_path / "one")),
        WanVideo(str(tmp_path / "one" / "vae")),
        WanVideo(str(tmp_path / "two")),
        WanVideo(str(tmp_path / "two"), subfolder="."),
        WanVideo(str(tmp_path / "three"), subfolder="odd"),
    ]
    assert len({config.spec() for config in configs}) == 1


def test_what_is_missing_is_named_with_the_way_to_it(tmp_path: Path) -> None:
    sizes = {"wan": "2.8 GB", "oobleck": "0.6 GB", "umt5": "11.4 GB", "t5": "3.1 GB"}
    for config in pipeline(tmp_path):
        file = weights_of(config)
        file.unlink()
        message = refused(config)
        assert f"{file}: missing" in message
        assert sizes[config.kind] in message
        command = r"`hf download \S+/\S+ --revision COMMIT --include '\S+' .*--local-dir DIR`"
        assert re.search(command, message)
        assert "give DIR as path" in message


def test_a_missing_shard_of_many_is_named(tmp_path: Path) -> None:
    model = wan22(tmp_path / "whole")
    model.save_pretrained(tmp_path / "many", max_shard_size="100KB")
    many = WanVideo(str(tmp_path / "many"))
    spec = many.open(CPU).spec
    assert spec.latent_shape(1, 16, 16) == (48, 1, 1, 1)
    shard = sorted((tmp_path / "many").glob("*.safetensors"))[1]
    data = shard.read_bytes()
    shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert many.spec().digest != spec.digest
    shard.unlink()
    assert f"{shard}: missing" in refused(many)


def test_no_folder_or_no_config_is_said(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    said = refused(WanVideo(str(nowhere)))
    assert "nowhere: no such folder of weights; for example, the Wan2.2 VAE" in said
    (tmp_path / "empty").mkdir()
    said = refused(OobleckAudio(str(tmp_path / "empty")))
    assert f"no config.json in {tmp_path}/empty/vae or {tmp_path}/empty" in said
    wan22(tmp_path / "wan" / "vae")
    said = refused(WanVideo(str(tmp_path / "wan"), subfolder="vea"))
    assert f"no config.json in {tmp_path}/wan/vea" in said


def test_another_class_is_refused(tmp_path: Path) -> None:
    wan22(tmp_path)
    said = refused(OobleckAudio(str(tmp_path)))
    assert "_class_name is 'AutoencoderKLWan', expected 'AutoencoderOobleck'" in said


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    wan22(tmp_path)
    wan21(tmp_path / "other")
    (tmp_path / "other" / VAE).replace(tmp_path / VAE)
    assert f"{tmp_path}: " in refused(WanVideo(str(tmp_path)))


def test_weights_that_lack_some_are_refused(tmp_path: Path) -> None:
    """The libraries would make them up."""
    for config in pipeline(tmp_path):
        file = weights_of(config)
        state = load_file(file)
        lost = next(name for name in sorted(state) if name.startswith("encoder."))
        save_file({n: t for n, t in state.items() if n != lost}, file, metadata={"format": "pt"})
        assert f"1 missing weights ({lost} ...)" in refused(config)


def test_weights_that_are_left_over_are_refused(tmp_path: Path) -> None:
    oobleck(tmp_path)
    state = load_file(tmp_path / VAE)
    save_file({**state, "of_another": torch.zeros(1)}, tmp_path / VAE, metadata={"format": "pt"})
    assert "1 unexpected weights (of_another ...)" in refused(OobleckAudio(str(tmp_path)))


def test_weights_that_are_cut_short_are_refused(tmp_path: Path) -> None:
    for config in pipeline(tmp_path):
        file = weights_of(config)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        assert "cannot be loaded" in refused(config)


def test_a_folder_has_no_revision(tmp_path: Path) -> None:
    wan22(tmp_path)
    said = refused(WanVideo(str(tmp_path), revision=COMMIT))
    assert f"a folder has no revision {COMMIT}" in said


@pytest.mark.usefixtures("no_network")
def test_a_hub_repository_needs_its_revision_and_is_not_fetched_unasked() -> None:
    said = refused(WanVideo("nobody/nothing"))
    assert "nobody/nothing: no such folder; for a hub repository give its revision" in said
    said = refused(WanVideo("nobody/nothing", revision=COMMIT))
    assert f"nobody/nothing at revision {COMMIT}: not on this machine" in said
    assert f"hf download nobody/nothing --revision {COMMIT} --include 'vae/*.json'" in said
    assert "or set download = true" in said
    assert " GB" not in said  # Of the release, not of this repository.
    with pytest.raises(UsageError, match=r"2\.8 GB"):
        WanVideo("Wan-AI/Wan2.2-TI2V-5B-Diffusers", revision=COMMIT).spec()


def in_the_cache(root: Path, revision: str) -> Path:
    """A snapshot as huggingface_hub lays it out."""
    return root / "models--some--wan" / "snapshots" / revision


def test_a_hub_repository_is_read_from_the_cache_at_its_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert no_network is None
    wan22(in_the_cache(tmp_path, COMMIT) / "vae")
    wan22(tmp_path / "local")
    here = WanVideo("some/wan", revision=COMMIT)
    assert here.open(CPU).spec == WanVideo(str(tmp_path / "local")).spec()
    other = COMMIT[::-1]
    said = refused(WanVideo("some/wan", revision=other))
    assert f"some/wan at revision {other}: not on this machine" in said


def test_what_the_hub_refuses_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise OSError("401 gated\nmore")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    said = refused(OobleckAudio("some/vae", revision=COMMIT, download=True))
    assert f"some/vae at revision {COMMIT}: cannot be fetched (401 gated)" in said
    assert "download = true" not in said


def test_only_what_is_needed_is_asked_of_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: dict[str, object] = {}

    def fetch(repository: str, **how: object) -> str:
        asked.update(how, repository=repository)
        umt5(tmp_path)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    config = UMT5Text("some/wan", revision=COMMIT, download=True)
    assert config.spec().width == 32
    assert asked["repository"] == "some/wan"
    assert asked["revision"] == COMMIT
    assert asked["local_files_only"] is False
    folders = {str(one).split("/")[0] for one in json.loads(json.dumps(asked["allow_patterns"]))}
    assert folders == {"text_encoder", "tokenizer"}
