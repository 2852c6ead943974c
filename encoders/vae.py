"""What the autoencoders of diffusers have in common: read what they are, load them whole."""

import inspect
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from avdata.encoders import weights
from avdata.encoders.weights import DTYPES, Model, Release, Weights

STEM = "diffusion_pytorch_model"


@dataclass(frozen=True, slots=True)
class Vae:
    """An autoencoder on disk."""

    folder: Path
    class_name: str
    config: dict[str, Any]
    """Of the checkpoint; what it leaves out has the library's default."""
    digest: str


def read(which: Weights, release: Release, class_name: str, settings: list[object]) -> Vae:
    """UsageError when files are missing or another class's; `settings` join the digest."""
    folder = weights.model_folder(which, release)
    given = weights.read_config(folder, "_class_name", class_name)
    parameters = inspect.signature(getattr(weights.library("diffusers"), class_name)).parameters
    config = {name: given.get(name, one.default) for name, one in parameters.items()}
    files = weights.weight_files(folder, STEM, lambda what: release.absent(what, which))
    digest = weights.digest([folder / "config.json", *files], [class_name, which.dtype, *settings])
    return Vae(folder, class_name, config, digest)


def load(vae: Vae, which: Weights, device: torch.device) -> Model:
    """Every weight from the files, no gradients; UsageError when they do not fit."""
    kind = getattr(weights.library("diffusers"), vae.class_name)
    with weights.loading(vae.folder), warnings.catch_warnings():
        # Oobleck is built with a weight norm that torch has a newer one of.
        warnings.simplefilter("ignore", FutureWarning)
        model, info = kind.from_pretrained(
            str(vae.folder),
            torch_dtype=DTYPES[which.dtype],
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,  # It would need accelerate.
            output_loading_info=True,
        )
    weights.require_whole(vae.folder, info)
    return model.eval().requires_grad_(False).to(device)
