"""Where the tensors of a pretrained tower lie, and what each is called in the tower.

Video: a folder of diffusers' `WanTransformer3DModel`. Audio: TangoFlux's own layout
(`tangoflux.safetensors`, with its `config.json` if it is there), or a folder of diffusers'
`FluxTransformer2DModel`. The latter lacks TangoFlux's pooled caption and duration token unless
`conditioner.safetensors`, which an export writes, lies beside. What joins the towers:
`joint.safetensors` of an export. Only safetensors are read.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from safetensors import safe_open

from avdata import storage
from avdata.encoders import weights
from avdata.encoders.weights import Release, Weights
from avdata.errors import UsageError
from avdata.trainer.model.audio_tower import MAX_SECONDS

VIDEO = Release(
    name="transformer of Wan2.2-TI2V-5B",
    size="20 GB in float32 or 10 GB in bfloat16",
    repository="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
    folders=("transformer",),
)
AUDIO = Release(
    name="transformer of TangoFlux",
    size="2 GB or more",
    repository="declare-lab/TangoFlux",
    folders=("transformer",),
)
STEM = "diffusion_pytorch_model"
TANGOFLUX = "tangoflux.safetensors"
CONDITIONER = "conditioner.safetensors"
JOINT = "joint.safetensors"
ASIDE = "text_encoder."
"""Of TangoFlux's file: its T5, which is an encoder here and no part of the model."""
OPEN_SETTINGS = ("rope_max_seq_len", "pos_embed_seq_len", "out_channels")
"""Settings of a config.json that do not have to agree: positions are computed here."""
NAMES = {
    "fc.0.weight": "pool.0.weight",
    "fc.0.bias": "pool.0.bias",
    "duration_emebdder.time_positional_embedding.0.weights": "duration.frequencies",
    "duration_emebdder.time_positional_embedding.1.weight": "duration.linear.weight",
    "duration_emebdder.time_positional_embedding.1.bias": "duration.linear.bias",
}
"""TangoFlux's names (spelt as there) of what it has beside `transformer.*`, and ours."""
Place = tuple[Path, str]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a tower's tensors lie: their names in the tower, with file and name there."""

    where: Path
    files: list[Path]
    places: dict[str, Place]
    aside: int = 0
    """Tensors of the text encoder, which are not read."""
    absent: frozenset[str] = frozenset()
    """Tensors of the tower that this layout does not have."""

    def by_file(self) -> dict[Path, list[tuple[str, str]]]:
        """Names in the tower and in the file."""
        found: dict[Path, list[tuple[str, str]]] = {}
        for ours, (file, theirs) in self.places.items():
            found.setdefault(file, []).append((ours, theirs))
        return found


def video_source(tower: WanTransformer3DModel, path: Path) -> Source:
    """A folder of `WanTransformer3DModel`, or of a pipeline with one in `transformer`."""
    wanted = Weights(str(path))
    folder = weights.model_folder(wanted, VIDEO)
    found = weights.read_config(folder, "_class_name", "WanTransformer3DModel")
    _require_config(folder, found, tower)
    return _diffusers(folder, wanted, VIDEO, "")


def audio_source(tower: FluxTransformer2DModel, path: Path) -> Source:
    """TangoFlux's file, a folder with it, or a folder of `FluxTransformer2DModel`."""
    whole = path / TANGOFLUX
    file = path if path.suffix == ".safetensors" else whole
    if file.is_file():
        config = file.with_name("config.json")
        if config.is_file():
            _require_tangoflux(config, tower)
        places: dict[str, Place] = {}
        aside = 0
        for name in _names(file):
            aside += name.startswith(ASIDE)
            if not name.startswith(ASIDE):
                places[_of_tangoflux(name)] = file, name
        return Source(file, [file], places, aside)
    wanted = Weights(str(path))
    folder = weights.model_folder(wanted, AUDIO)
    found = weights.read_config(folder, "_class_name", "FluxTransformer2DModel")
    _require_config(folder, found, tower)
    source = _diffusers(folder, wanted, AUDIO, "flux.")
    beside = folder / CONDITIONER
    if not beside.is_file():
        return replace(source, absent=frozenset(NAMES.values()))
    source.files.append(beside)
    source.places.update({_of_tangoflux(name): (beside, name) for name in _names(beside)})
    return source


def joint_source(path: Path) -> Source:
    """An export's `joint.safetensors`, or the export; the model's own names."""
    file = path / JOINT if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"{file}: no such file; `avdata model export RUN --out DIR` writes one")
    return Source(file, [file], {name: (file, name) for name in _names(file)})


def _of_tangoflux(name: str) -> str:
    """The tower's name of one of TangoFlux's tensors; no name at all where it has none."""
    if name.startswith("transformer."):
        return name.replace("transformer.", "flux.", 1)
    return NAMES.get(name, f"({name})")


def _diffusers(folder: Path, wanted: Weights, release: Release, prefix: str) -> Source:
    files = weights.weight_files(folder, STEM, lambda what: release.absent(what, wanted))
    tensors = [file for file in files if file.suffix == ".safetensors"]
    places: dict[str, Place] = {}
    for file in tensors:
        for name in _names(file):
            if prefix + name in places:
                twice = places[prefix + name][0].name
                raise UsageError(f"{file}: {name} is in {twice}, too; fetch the folder again")
            places[prefix + name] = file, name
    return Source(folder, [folder / "config.json", *files], places)


def _names(file: Path) -> list[str]:
    with weights.loading(file), safe_open(file, "pt") as opened:
        return sorted(opened.keys())


def _require_config(
    folder: Path, found: Mapping[str, Any], tower: WanTransformer3DModel | FluxTransformer2DModel
) -> None:
    """UsageError unless a config.json means the tower's architecture."""
    usual = inspect.signature(type(tower).__init__).parameters
    for key, wanted in tower.config.items():
        if key not in usual or key in OPEN_SETTINGS:
            continue
        _require_equal(folder / "config.json", key, found.get(key, usual[key].default), wanted)


def _require_tangoflux(file: Path, tower: FluxTransformer2DModel) -> None:
    """UsageError unless TangoFlux's own settings mean this audio tower."""
    found = storage.read_json(file)
    wanted = {**tower.config, "max_duration": MAX_SECONDS}
    for key in found.keys() & wanted.keys():
        _require_equal(file, key, found[key], wanted[key])


def _require_equal(file: Path, key: str, found: object, wanted: object) -> None:
    plain = [list(one) if isinstance(one, tuple) else one for one in (found, wanted)]
    if plain[0] != plain[1]:
        raise UsageError(
            f"{file}: {key} is {plain[0]!r}, this model has {plain[1]!r}; take the preset, the "
            "settings or the shards of the checkpoint"
        )
