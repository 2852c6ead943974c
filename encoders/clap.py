"""CLAP by transformers (`ClapModel`): sounds and texts in one space; LAION's checkpoints.

Sounds of less than ten seconds are repeated and padded, as the checkpoints were trained. Of longer
ones the library would take ten seconds by chance; here it is given the middle ten.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from avdata.encoders import weights
from avdata.encoders.embedder import EmbeddingSpec
from avdata.encoders.weights import DTYPES, Model, Release, Weights
from avdata.errors import UsageError

VERSION = 1
RELEASE = Release(
    name="CLAP HTSAT of LAION",
    size="615 MB",
    repository="laion/clap-htsat-unfused",
    folders=(".",),
)
FEATURES = "preprocessor_config.json"
"""Its defaults are not what LAION's checkpoints were trained with."""
TEXTS = 32
"""Of similar lengths that go through the model at once."""
KNOWN = "a dog barks"
"""A tokenizer that has no vocabulary makes nothing but its frame of it."""


@dataclass(frozen=True, slots=True)
class Clap(Weights):
    """Configuration of any `ClapModel`."""

    kind: Literal["clap"] = "clap"

    def spec(self) -> EmbeddingSpec:
        """What it is, from its files; UsageError when they are missing or of another model."""
        folder = weights.model_folder(self, RELEASE)
        plain = weights.read_config(folder, "model_type", "clap")
        files = weights.weight_files(folder, "model", lambda what: RELEASE.absent(what, self))
        if not (folder / FEATURES).is_file():
            raise RELEASE.absent(f"{folder}: no {FEATURES}", self)
        words = [folder / FEATURES, *sorted(folder.glob("*token*.json"))]
        digest = weights.digest([folder / "config.json", *files, *words], [VERSION, self.dtype])
        return EmbeddingSpec(self.kind, digest, plain.get("projection_dim", 512))

    def open(self, device: torch.device) -> "OpenClap":
        """Loads it; UsageError as `spec`, without transformers, and when weights do not fit."""
        return OpenClap(self, device)


class OpenClap:
    """An `AudioText`."""

    def __init__(self, config: Clap, device: torch.device) -> None:
        self._spec, self._device, self._dtype = config.spec(), device, DTYPES[config.dtype]
        folder = weights.model_folder(config, RELEASE)
        transformers = weights.library("transformers")
        with weights.quiet(transformers), weights.loading(folder):
            model, info = transformers.ClapModel.from_pretrained(
                str(folder),
                dtype=self._dtype,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
            self._features = transformers.ClapFeatureExtractor.from_pretrained(
                str(folder), local_files_only=True
            )
        weights.require_whole(folder, info)
        self._model: Model = model.to(device).eval().requires_grad_(False)
        self._tokenizer = _tokenizer(transformers, folder)
        self._max_tokens = int(model.config.text_config.max_position_embeddings) - 2
        fused = model.config.audio_config.enable_fusion
        self._truncation = "fusion" if fused else "rand_trunc"
        self.sample_rate = int(self._features.sampling_rate)

    @property
    def spec(self) -> EmbeddingSpec:
        """Of the checkpoint."""
        return self._spec

    @property
    def scale(self) -> float:
        """See `ImageText.scale`."""
        return float(self._model.logit_scale_a.float().exp())

    @torch.no_grad()
    def sounds(self, samples: Float[Tensor, "b m"]) -> Float[Tensor, "b d"]:
        """See `AudioText.sounds`."""
        longest = int(self._features.nb_max_samples)
        first = max(0, (samples.shape[1] - longest) // 2)
        heard = [one.numpy() for one in samples[:, first : first + longest].cpu().float()]
        given = self._features(
            heard, sampling_rate=self.sample_rate, truncation=self._truncation, return_tensors="pt"
        )
        features = given["input_features"].to(self._device, self._dtype)
        # The library calls one of a batch longer by chance where none is.
        longer = torch.zeros(1, 1, dtype=torch.bool, device=self._device)
        # Batched, a clip's embedding would depend in its last bits on its company.
        outputs = [
            self._model.get_audio_features(input_features=one[None], is_longer=longer)
            for one in features
        ]
        return _unit(outputs)

    @torch.no_grad()
    def texts(self, texts: list[str]) -> Float[Tensor, "b d"]:
        """See `ImageText.texts`; their last bits depend on their company."""
        order = sorted(range(len(texts)), key=lambda k: len(texts[k]))  # So that little is padded.
        outputs = []
        for first in range(0, len(texts), TEXTS):
            tokens = self._tokenizer(
                [texts[k] for k in order[first : first + TEXTS]],
                padding=True,
                truncation=True,
                max_length=self._max_tokens,
                return_tensors="pt",
            ).to(self._device)
            outputs.append(
                self._model.get_text_features(
                    input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
                )
            )
        return _unit(outputs)[torch.tensor(order).argsort()]


def _unit(outputs: list[Model]) -> Float[Tensor, "b d"]:
    """transformers 5 answers with a record, 4 with the tensor itself."""
    found = [one if isinstance(one, Tensor) else one.pooler_output for one in outputs]
    return torch.nn.functional.normalize(torch.cat(found).float(), dim=-1)


def _tokenizer(transformers: Model, folder: Path) -> Model:
    with weights.loading(folder):
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    if len(tokenizer(KNOWN)["input_ids"]) <= 2:
        raise UsageError(f"{folder}: its tokenizer knows no words; fetch vocab and tokenizer again")
    return tokenizer
