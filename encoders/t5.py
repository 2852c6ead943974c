"""The text encoders of T5's family, by transformers: umT5 for video captions, FLAN-T5 for audio.

Wan was trained with umT5-XXL (4096 wide, 512 tokens), TangoFlux with FLAN-T5-large (1024 wide, 64
tokens). Embeddings are the encoder's last hidden states, the end-of-sentence token included,
without padding. Captions go through the model one by one, so none depends on its company. Licence
of both weights: Apache-2.0.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from avdata.encoders import weights
from avdata.encoders.spec import TextSpec
from avdata.encoders.weights import DTYPES, Model, Release, Weights

VERSION = 1
CLASSES = {"umt5": "UMT5EncoderModel", "t5": "T5EncoderModel"}
RELEASES = {
    "umt5": Release(
        name="umT5-XXL encoder of Wan2.2",
        size="11.4 GB",
        repository="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
        folders=("text_encoder", "tokenizer"),
    ),
    "t5": Release(
        name="FLAN-T5-large", size="3.1 GB", repository="google/flan-t5-large", folders=(".",)
    ),
}
TOKENIZER_FILES = (
    "tokenizer.json",
    "spiece.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
"""One of the first two is needed; all that are there are part of the digest."""
NOT_ENCODER = re.compile(r"decoder\.|lm_head\.")
"""Weights that are left out: the head of FLAN-T5 is its own, not its embeddings."""


@dataclass(frozen=True, slots=True)
class UMT5Text(Weights):
    """Configuration of umT5, of any size."""

    max_tokens: int = 512
    """A longer caption is cut; the last token is always the end of the sentence."""
    kind: Literal["umt5"] = "umt5"

    def __post_init__(self) -> None:
        _require_room(self.max_tokens)

    def spec(self) -> TextSpec:
        """What it is, from its files; UsageError when they are missing or not umT5's."""
        return _read(self).spec

    def open(self, device: torch.device) -> "OpenT5":
        """Loads it; UsageError as `spec`, and when weights are damaged or not this model's."""
        return OpenT5(self, device)


@dataclass(frozen=True, slots=True)
class T5Text(Weights):
    """Configuration of T5 or FLAN-T5, of any size; its decoder is left out."""

    max_tokens: int = 64
    """A longer caption is cut; the last token is always the end of the sentence."""
    kind: Literal["t5"] = "t5"

    def __post_init__(self) -> None:
        _require_room(self.max_tokens)

    def spec(self) -> TextSpec:
        """What it is, from its files; UsageError when they are missing or not T5's."""
        return _read(self).spec

    def open(self, device: torch.device) -> "OpenT5":
        """Loads it; UsageError as `spec`, and when weights are damaged or not this model's."""
        return OpenT5(self, device)


class OpenT5:
    """A `TextEncoder`."""

    def __init__(self, config: UMT5Text | T5Text, device: torch.device) -> None:
        found = _read(config)
        self._spec = found.spec
        self._model = _load(config, found.model).to(device)
        self._tokenizer = _tokenizer(found.tokenizer)

    @property
    def spec(self) -> TextSpec:
        """Of the checkpoint."""
        return self._spec

    @torch.no_grad()
    def encode(self, captions: list[str]) -> list[Float[Tensor, "_ width"]]:
        """See `TextEncoder.encode`; float32. An empty caption is its end-of-sentence token."""
        return [self._one(caption) for caption in captions]

    def _one(self, caption: str) -> Float[Tensor, "_ width"]:
        tokens = self._tokenizer(
            caption, truncation=True, max_length=self._spec.max_tokens, return_tensors="pt"
        )
        hidden = self._model(
            input_ids=tokens.input_ids.to(self._model.device),
            attention_mask=tokens.attention_mask.to(self._model.device),
        )
        states: Tensor = hidden.last_hidden_state[0].float()
        return states


@dataclass(frozen=True, slots=True)
class _Files:
    model: Path
    tokenizer: Path
    spec: TextSpec


def _require_room(max_tokens: int) -> None:
    if max_tokens < 2:
        raise ValueError(f"max_tokens must be 2 or more, not {max_tokens}")


def _read(config: UMT5Text | T5Text) -> _Files:
    release = RELEASES[config.kind]
    model = weights.model_folder(config, release)
    plain = weights.read_config(model, "model_type", config.kind)
    files = weights.weight_files(model, "model", lambda what: release.absent(what, config))
    tokenizer = weights.root(config, release) / "tokenizer"
    tokenizer = tokenizer if tokenizer.is_dir() else model
    words = [tokenizer / name for name in TOKENIZER_FILES if (tokenizer / name).is_file()]
    if not {file.name for file in words} & set(TOKENIZER_FILES[:2]):
        raise release.absent(f"{tokenizer}: no tokenizer.json or spiece.model", config)
    settings = [VERSION, config.kind, config.dtype, config.max_tokens]
    digest = weights.digest([model / "config.json", *files, *words], settings)
    return _Files(
        model, tokenizer, TextSpec(config.kind, digest, plain["d_model"], config.max_tokens)
    )


def _load(config: UMT5Text | T5Text, folder: Path) -> Model:
    transformers = weights.library("transformers")
    with weights.quiet(transformers), weights.loading(folder):
        model, info = getattr(transformers, CLASSES[config.kind]).from_pretrained(
            str(folder),
            dtype=DTYPES[config.dtype],
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    unexpected = [key for key in info["unexpected_keys"] if not NOT_ENCODER.match(key)]
    weights.require_whole(folder, {**info, "unexpected_keys": unexpected})
    return model.eval().requires_grad_(False)


def _tokenizer(folder: Path) -> Model:
    transformers = weights.library("transformers")
    # T5's own class in transformers 5 takes the vocabulary of tokenizer.json and little else.
    as_it_is = (folder / "tokenizer.json").is_file()
    kind = transformers.PreTrainedTokenizerFast if as_it_is else transformers.AutoTokenizer
    with weights.loading(folder):
        return kind.from_pretrained(str(folder), local_files_only=True)
