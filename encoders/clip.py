"""CLIP by open_clip (LAION and others): frames and texts in one space.

Reads a folder in open_clip's own layout, open_clip_config.json and open_clip_model.safetensors, as
its hub repositories have it. The library is imported when a model is opened.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from avdata import storage
from avdata.encoders import weights
from avdata.encoders.embedder import EmbeddingSpec
from avdata.encoders.weights import DTYPES, Model, Release, Weights
from avdata.errors import UsageError

VERSION = 1
RELEASE = Release(
    name="CLIP ViT-B/32 of LAION-2B",
    size="605 MB",
    repository="laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    folders=(".",),
)
CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model"


@dataclass(frozen=True, slots=True)
class OpenClip(Weights):
    """Configuration of any model of open_clip."""

    kind: Literal["open_clip"] = "open_clip"

    def spec(self) -> EmbeddingSpec:
        """What it is, from its files; UsageError when they are missing."""
        folder = _folder(self)
        plain = storage.read_json(folder / CONFIG)
        files = weights.weight_files(folder, WEIGHTS, lambda what: RELEASE.absent(what, self))
        digest = weights.digest([folder / CONFIG, *files], [VERSION, self.dtype])
        try:
            return EmbeddingSpec(self.kind, digest, plain["model_cfg"]["embed_dim"])
        except (KeyError, TypeError) as error:
            raise UsageError(
                f"{folder / CONFIG}: no model_cfg.embed_dim; fetch it again"
            ) from error

    def open(self, device: torch.device) -> "OpenedClip":
        """Loads it; UsageError as `spec`, without open_clip, and when weights do not fit."""
        return OpenedClip(self, device)


class OpenedClip:
    """An `ImageText`."""

    def __init__(self, config: OpenClip, device: torch.device) -> None:
        self._spec, self._device, self._dtype = config.spec(), device, DTYPES[config.dtype]
        library = weights.library("open_clip", extra="clip")
        folder = _folder(config)
        place = f"local-dir:{folder}"
        with weights.loading(folder, extra="clip"):
            model, _, self._transform = library.create_model_and_transforms(
                place, pretrained_text=False, pretrained_image=False
            )
            self._tokenizer = library.get_tokenizer(place)
        self._model: Model = model.to(device, self._dtype).eval().requires_grad_(False)

    @property
    def spec(self) -> EmbeddingSpec:
        """Of the checkpoint."""
        return self._spec

    @property
    def scale(self) -> float:
        """See `ImageText.scale`."""
        return float(self._model.logit_scale.float().exp())

    @torch.no_grad()
    def images(self, frames: list[UInt8[Tensor, "_ _ 3"]]) -> Float[Tensor, "b d"]:
        """See `ImageText.images`."""
        from PIL import Image

        pictures = [self._transform(Image.fromarray(one.cpu().numpy())) for one in frames]
        batch = torch.stack(pictures).to(self._device, self._dtype)
        return _unit(self._model.encode_image(batch))

    @torch.no_grad()
    def texts(self, texts: list[str]) -> Float[Tensor, "b d"]:
        """See `ImageText.texts`."""
        return _unit(self._model.encode_text(self._tokenizer(texts).to(self._device)))


def _folder(config: OpenClip) -> Path:
    folder = weights.root(config, RELEASE) / (config.subfolder or ".")
    if not (folder / CONFIG).is_file():
        raise RELEASE.absent(f"{folder}: no {CONFIG}", config)
    return folder


def _unit(embeddings: Tensor) -> Float[Tensor, "b d"]:
    return torch.nn.functional.normalize(embeddings.float(), dim=-1)
