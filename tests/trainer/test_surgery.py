import dataclasses
import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from avdata.errors import UsageError
from avdata.pipeline.shards.dataset import Dataset
from avdata.storage import read_json
from avdata.trainer import checkpoint
from avdata.trainer.config import InitConfig, TrainConfig
from avdata.trainer.data.config import DataConfig, ReadConfig
from avdata.trainer.group import joined
from avdata.trainer.metrics import read_metrics
from avdata.trainer.model.avfulldit import AVFullDiT
from avdata.trainer.model.cost import meta_model
from avdata.trainer.pretrained import JOINT
from avdata.trainer.run import Run, prepare
from avdata.trainer.surgery import export_towers, load_towers, tally
from avdata.trainer.train import train
from tests.trainer import towers
from tests.trainer.shards import write_shards
from tests.trainer.tiny import CLIP, CONFIG, SPECS, inputs

WEIGHTS = "diffusion_pytorch_model.safetensors"
WRONG = [
    ("missing", {"blocks__1__attn1__to_q__weight": None}, "blocks.1.attn1.to_q.weight"),
    ("unexpected", {"blocks__3__ffn__net__2__bias": torch.zeros(48)}, "blocks.3.ffn.net.2.bias"),
    ("mismatched", {"proj_out__bias": torch.zeros(7)}, "proj_out.bias is (7,), expected (16,)"),
    ("mismatched", {"proj_out__bias": torch.zeros(16, dtype=torch.int8)}, "proj_out.bias is I8"),
    ("is not finite", {"proj_out__bias": torch.full((16,), torch.nan)}, "proj_out.bias"),
]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return towers.wan_folder(tmp_path_factory.mktemp("wan"))


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return towers.tangoflux_folder(tmp_path_factory.mktemp("tangoflux"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_shards(tmp_path_factory.mktemp("shards"))


def model(seed: int = 0) -> AVFullDiT:
    return AVFullDiT.build(CONFIG, SPECS, CLIP, "t2av", seed)


def init(video: Path | None = None, audio: Path | None = None) -> InitConfig:
    return InitConfig(*(None if one is None else str(one) for one in (video, audio)))


def exported(root: Path) -> InitConfig:
    return InitConfig(*(str(root / name) for name in ("video", "audio", JOINT)))


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / folder.name))


def trained_model(run: Run) -> AVFullDiT:
    whole = model(seed=9)
    with joined("cpu"):
        checkpoint.load_model(run, whole)
    return whole


def by_diffusers(folder: Path) -> towers.Model:
    """As `from_pretrained` does; without accelerate it refuses every Wan transformer."""
    if find_spec("accelerate") is not None:
        return towers.WAN.from_pretrained(folder).eval()
    made = towers.WAN.from_config(towers.WAN.load_config(folder))
    made.load_state_dict(load_file(folder / WEIGHTS))
    return made.eval()


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_both_released_layouts_load_whole_and_the_new_weights_stay_as_initialised(
    video: Path, audio: Path
) -> None:
    whole = model()
    before = {name: value.clone() for name, value in whole.joints.state_dict().items()}
    read = load_towers(whole, init(video, audio))
    assert same(whole.video.wan.state_dict(), towers.wan().state_dict())
    assert same(whole.audio.flux.state_dict(), towers.flux().state_dict())
    file = load_file(audio / "tangoflux.safetensors")
    assert torch.equal(whole.audio.state_dict()["pool.0.weight"], file["fc.0.weight"])
    fourier = "duration_emebdder.time_positional_embedding.0.weights"
    assert torch.equal(whole.audio.duration.frequencies, file[fourier])
    assert same(before, whole.joints.state_dict())
    assert read["audio"].aside == 1


def test_a_sharded_folder_is_the_whole_one(video: Path, tmp_path: Path) -> None:
    sharded = towers.wan_folder(tmp_path, sharded=True)
    assert len(list((sharded / "transformer").glob("*.safetensors"))) > 1
    ours, theirs = model(1), model(2)
    load_towers(ours, init(sharded))
    load_towers(theirs, init(video))
    assert same(ours.video.state_dict(), theirs.video.state_dict())
    lost = next((sharded / "transformer").glob("*-00002-of-*.safetensors"))
    lost.unlink()
    with pytest.raises(UsageError, match=lost.name):
        load_towers(ours, init(sharded))


@pytest.mark.parametrize(("kind", "change", "named"), WRONG, ids=[one[0] for one in WRONG])
def test_a_tensor_that_does_not_fit_is_named(
    kind: str, change: dict[str, Tensor | None], named: str, video: Path, tmp_path: Path
) -> None:
    folder = copied(video, tmp_path)
    towers.edited(folder / "transformer" / WEIGHTS, **change)
    with pytest.raises(UsageError) as error:
        load_towers(model(), init(folder))
    assert kind in str(error.value)
    assert named in str(error.value)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize("lost", ["fc.0.bias", "transformer.x_embedder.weight"])
def test_tangofluxs_file_is_read_as_strictly(lost: str, audio: Path, tmp_path: Path) -> None:
    folder = copied(audio, tmp_path)
    towers.edited(folder / "tangoflux.safetensors", **{lost: None})
    with pytest.raises(UsageError, match=r"1 missing weights"):
        load_towers(model(), init(audio=folder))


@pytest.mark.parametrize("extra", ["vae.x", "flux.x_embedder.weight", "pool.0.bias"])
def test_tangofluxs_file_may_hold_nothing_else(extra: str, audio: Path, tmp_path: Path) -> None:
    """Not even by the names that its tensors have here."""
    folder = copied(audio, tmp_path)
    towers.edited(folder / "tangoflux.safetensors", **{extra: torch.ones(1)})
    with pytest.raises(UsageError, match=rf"1 unexpected weights \({extra}"):
        load_towers(model(), init(audio=folder))


def test_tangofluxs_file_without_its_conditioning_is_not_whole(audio: Path, tmp_path: Path) -> None:
    folder = copied(audio, tmp_path)
    file = folder / "tangoflux.safetensors"
    towers.edited(file, **dict.fromkeys(n for n in load_file(file) if n[:2] in ("fc", "du")))
    with pytest.raises(UsageError, match="5 missing weights"):
        load_towers(model(), init(audio=folder))


@pytest.mark.parametrize(("key", "value"), [("num_attention_heads", 4), ("eps", 1e-5)])
def test_a_tower_of_another_architecture_is_refused_by_its_config(
    key: str, value: float, video: Path, tmp_path: Path
) -> None:
    folder = copied(video, tmp_path)
    file = folder / "transformer" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    with pytest.raises(UsageError, match=f"{key} is {value}"):
        load_towers(model(), init(folder))


def test_tangofluxs_settings_are_compared_too(audio: Path, tmp_path: Path) -> None:
    folder = copied(audio, tmp_path)
    (folder / "config.json").write_text(json.dumps({**towers.TANGOFLUX, "max_duration": 10}))
    with pytest.raises(UsageError, match="max_duration is 10"):
        load_towers(model(), init(audio=folder))


def test_folders_of_other_models_and_of_nothing_are_named(video: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected 'FluxTransformer2DModel'"):
        load_towers(model(), init(audio=video))
    for wrong in (init(tmp_path), init(audio=tmp_path / "nowhere")):
        with pytest.raises(UsageError, match="hf download"):
            load_towers(model(), wrong)


def test_a_flux_folder_alone_leaves_the_conditioning_new(tmp_path: Path) -> None:
    towers.flux().save_pretrained(tmp_path / "flux")
    whole = model()
    found = tally(whole, load_towers(whole, init(audio=tmp_path / "flux")))
    assert found["audio tower"]["new"].tensors == 0
    for part in ("audio conditioning", "video tower"):
        assert found[part]["loaded"].tensors == 0


def test_what_is_loaded_widened_and_new_adds_up_from_headers_alone(
    video: Path, audio: Path
) -> None:
    ghost = meta_model(CONFIG, SPECS, CLIP, "t2av")
    found = tally(ghost, load_towers(ghost, init(video, audio)))
    counted = sum(row[kind].parameters for row in found.values() for kind in ("loaded", "new"))
    assert counted == sum(p.numel() for p in ghost.parameters())
    joints = sum(p.numel() for p in ghost.joints.parameters())
    new = {part: row["new"].parameters for part, row in found.items()}
    assert new == dict.fromkeys(found, 0) | {"joint layers": joints}
    # q, k, v with biases and the output's weight, of each joint layer.
    assert found["audio tower"]["widened"].tensors == 7 * CONFIG.num_joint


@torch.no_grad()
def test_exported_towers_are_what_diffusers_loads_and_what_was_loaded(
    video: Path, audio: Path, tmp_path: Path
) -> None:
    whole = model()
    load_towers(whole, init(video, audio))
    export_towers(whole, tmp_path / "out")
    seen, heard, t = inputs()
    again = by_diffusers(tmp_path / "out" / "video")
    given = seen.latents, t * 1000, seen.text
    assert torch.equal(again(*given)[0], towers.wan()(*given)[0])
    flux = towers.FLUX.from_pretrained(tmp_path / "out" / "audio")
    assert same(dict(flux.state_dict()), dict(towers.flux().state_dict()))
    back = model(seed=7)
    load_towers(back, exported(tmp_path / "out"))
    ours, theirs = back(seen, heard, t), whole(seen, heard, t)
    assert torch.equal(ours.video, theirs.video)
    assert torch.equal(ours.audio, theirs.audio)
    with pytest.raises(UsageError, match="out"):
        export_towers(whole, tmp_path / "out")


@pytest.mark.parametrize(
    ("said", "change", "name"),
    [
        ("missing", {"joints__1__new_q__bias": None}, "joints.1.new_q.bias"),
        ("unexpected", {"joints__2__new_q__bias": torch.zeros(2)}, "joints.2.new_q.bias"),
        ("mismatched", {"joints__0__new_out__weight": torch.zeros(2)}, "joints.0.new_out.weight"),
    ],
)
def test_what_joins_the_towers_is_read_as_strictly(
    said: str, change: dict[str, Tensor | None], name: str, tmp_path: Path
) -> None:
    export_towers(model(), tmp_path / "out")
    towers.edited(tmp_path / "out" / JOINT, **change)
    with pytest.raises(UsageError, match=f"1 {said} weights .*{name}") as caught:
        load_towers(model(), InitConfig(joint=str(tmp_path / "out")))
    assert JOINT in str(caught.value)
    (tmp_path / "out" / JOINT).unlink()
    with pytest.raises(UsageError, match="avdata model export"):
        load_towers(model(), InitConfig(joint=str(tmp_path / "out")))


@pytest.mark.parametrize("part", ["video", "audio"])
def test_an_export_that_has_lost_a_tensor_is_refused(part: str, tmp_path: Path) -> None:
    export_towers(model(), tmp_path / "out")
    towers.edited(tmp_path / "out" / part / WEIGHTS, proj_out__weight=None)
    with pytest.raises(UsageError, match=r"1 missing weights .*proj_out\.weight"):
        load_towers(model(), exported(tmp_path / "out"))


TRAIN = TrainConfig(
    model=dataclasses.replace(CONFIG, new_output_std=0.0),
    steps=3,
    batch_size=4,
    warmup_steps=1,
    val_every=3,
    val_samples=2,
    data=DataConfig(read=ReadConfig(threads=1)),
    device="cpu",
)


def test_training_starts_from_pretrained_towers_and_resumes_without_them(
    dataset: Dataset, video: Path, audio: Path, tmp_path: Path
) -> None:
    here = copied(video, tmp_path), copied(audio, tmp_path)
    config = dataclasses.replace(TRAIN, init=init(*here), steps=2, learning_rate=1e-9)
    run = prepare(tmp_path / "run", dataset.root, config)
    assert train(run) == 2
    trained = trained_model(run)
    torch.testing.assert_close(
        trained.video.wan.state_dict(), towers.wan().state_dict(), atol=1e-6, rtol=0
    )
    said = read_json(run.root / "init.json")
    assert said["model"]["video tower"]["new"]["tensors"] == 0
    assert set(said["digests"]) == {"video", "audio"}
    for folder in here:
        shutil.rmtree(folder)
    longer = prepare(run.root, dataset.root, dataclasses.replace(config, steps=3))
    assert train(longer) == 3
    with pytest.raises(UsageError, match=r"init\.video"):
        prepare(run.root, dataset.root, dataclasses.replace(TRAIN, init=init(audio=audio)))


def test_frozen_towers_stay_and_the_new_matrices_learn(
    dataset: Dataset, video: Path, audio: Path, tmp_path: Path
) -> None:
    config = dataclasses.replace(TRAIN, init=init(video, audio), trained="new", learning_rate=1e-2)
    run = prepare(tmp_path / "run", dataset.root, dataclasses.replace(config, steps=2))
    train(run)
    train(prepare(run.root, dataset.root, config))
    trained, begun = trained_model(run), model()
    assert same(trained.video.wan.state_dict(), towers.wan().state_dict())
    assert same(trained.audio.flux.state_dict(), towers.flux().state_dict())
    assert not same(trained.joints.state_dict(), begun.joints.state_dict())
    assert [line["step"] for line in read_metrics(run.metrics)] == [1, 2, 3]


def test_frozen_towers_without_their_conditioning_are_refused(
    dataset: Dataset, video: Path, tmp_path: Path
) -> None:
    towers.flux().save_pretrained(tmp_path / "flux")
    config = dataclasses.replace(TRAIN, init=init(video, tmp_path / "flux"), trained="new")
    run = prepare(tmp_path / "run", dataset.root, config)
    with pytest.raises(UsageError, match=r"tangoflux\.safetensors"):
        train(run)
