"""Tiny random checkpoints, written by the libraries' own classes as real ones are."""

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.processors import TemplateProcessing

Model = Any
"""Of a library that is not typed."""
diffusers: Any = importlib.import_module("diffusers")
transformers: Any = importlib.import_module("transformers")

TINY_VAE = {"base_dim": 3, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
TINY_T5: dict[str, Any] = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
}
VOCABULARY = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁a", -1.0), ("▁ball", -1.0)]
VOCABULARY += [(letter, -3.0) for letter in "▁abcdefghijklmnopqrstuvwxyz,."]


@contextmanager
def without_warnings() -> Iterator[None]:
    """Of the weight norm that Oobleck is built with."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def wan22(folder: Path, seed: int = 0) -> Model:
    """Real strides and channels of Wan2.2, random statistics."""
    g = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = diffusers.AutoencoderKLWan(
        **TINY_VAE,
        z_dim=48,
        in_channels=12,
        out_channels=12,
        is_residual=True,
        patch_size=2,
        scale_factor_spatial=16,
        scale_factor_temporal=4,
        latents_mean=torch.randn(48, generator=g).tolist(),
        latents_std=(torch.rand(48, generator=g) + 0.5).tolist(),
    )
    model.save_pretrained(folder)
    return model.eval()


def wan21(folder: Path, seed: int = 0) -> Model:
    """Statistics, strides and channels are the library's defaults: those of Wan2.1."""
    torch.manual_seed(seed)
    model = diffusers.AutoencoderKLWan(**TINY_VAE)
    model.save_pretrained(folder)
    return model.eval()


def oobleck(folder: Path, seed: int = 0, audio_channels: int = 2) -> Model:
    """The real hop of 2048 at 6 channels."""
    torch.manual_seed(seed)
    with without_warnings():
        model = diffusers.AutoencoderOobleck(
            encoder_hidden_size=12,
            decoder_channels=8,
            decoder_input_channels=6,
            channel_multiples=[1, 1, 1, 1, 1],
            audio_channels=audio_channels,
        )
    model.save_pretrained(folder)
    return model.eval()


def tokenizer(folder: Path) -> None:
    """Of T5's kind: pieces of words, an end-of-sentence token after them."""
    pieces = Tokenizer(Unigram(VOCABULARY, unk_id=2))
    pieces.pre_tokenizer = Metaspace()
    pieces.post_processor = TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1), ("<pad>", 0)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=pieces, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


def umt5(folder: Path, seed: int = 0) -> Model:
    """In the folders of Wan's pipeline: text_encoder and tokenizer."""
    torch.manual_seed(seed)
    model = transformers.UMT5EncoderModel(
        transformers.UMT5Config(vocab_size=len(VOCABULARY), **TINY_T5)
    )
    model.save_pretrained(folder / "text_encoder")
    tokenizer(folder / "tokenizer")
    return model.eval()


def t5(folder: Path, seed: int = 0) -> Model:
    """As FLAN-T5 is published: encoder, decoder and a head of its own (the library writes none, as
    if it were the embeddings) with the tokenizer, all in one folder.
    """
    torch.manual_seed(seed)
    model = transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=len(VOCABULARY), **TINY_T5)
    )
    model.save_pretrained(folder)
    file = folder / "model.safetensors"
    head = {"lm_head.weight": torch.randn(len(VOCABULARY), TINY_T5["d_model"])}
    save_file({**load_file(file), **head}, file, metadata={"format": "pt"})
    tokenizer(folder)
    return model.eval()
