"""Tiny random CLIP and CLAP checkpoints, written by the libraries' own classes."""

import importlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

Model = Any
TINY_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def open_clip_model(folder: Path, seed: int = 0) -> Model:
    """In the layout of open_clip's hub repositories."""
    library: Any = importlib.import_module("open_clip")
    torch.manual_seed(seed)
    model = library.CLIP(**TINY_CLIP).eval()
    folder.mkdir(parents=True)
    preprocess = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]}
    plain = {"model_cfg": TINY_CLIP, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(plain))
    save_file(model.state_dict(), str(folder / "open_clip_model.safetensors"))
    return model


def clap_model(folder: Path, seed: int = 0, fused: bool = False) -> Model:
    """As `laion/clap-htsat-unfused` is published, with a vocabulary of letters."""
    transformers: Any = importlib.import_module("transformers")
    torch.manual_seed(seed)
    text = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"intermediate_size": 32, "max_position_embeddings": 40, "pad_token_id": 1}
    audio = {"patch_embeds_hidden_size": 8, "depths": [1, 1], "num_attention_heads": [1, 2]}
    audio |= {"hidden_size": 16, "projection_dim": 16, "window_size": 8, "num_mel_bins": 64}
    audio |= {"enable_fusion": fused, "fusion_type": "aff_2d" if fused else None}
    config = transformers.ClapConfig(
        text_config={**text, "projection_dim": 16}, audio_config=audio, projection_dim=16
    )
    model = transformers.ClapModel(config).eval()
    model.save_pretrained(folder)
    transformers.ClapFeatureExtractor().save_pretrained(folder)
    tokenizer(transformers, folder)
    return model


def tokenizer(transformers: Model, folder: Path, words: str = LETTERS) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from tokenizers.processors import TemplateProcessing

    names = ["<s>", "<pad>", "</s>", "<unk>", *words]
    pieces = Tokenizer(WordLevel({name: k for k, name in enumerate(names)}, unk_token="<unk>"))
    pieces.pre_tokenizer = Split("", "isolated") if words else Split(" ", "removed")
    pieces.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=pieces, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
