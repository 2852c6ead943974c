"""Pretrained towers of the tiny model, made with the libraries' own classes."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxTransformer2DModel, WanTransformer3DModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from avdata.trainer.model.rope import audio_axes
from tests.trainer.tiny import CONFIG, SPECS

Model = Any
"""Of a library that is not typed."""
WAN: Model = WanTransformer3DModel
FLUX: Model = FluxTransformer2DModel
TANGOFLUX = {
    "num_layers": CONFIG.audio_double_layers,
    "num_single_layers": CONFIG.audio_single_layers,
    "in_channels": SPECS.audio.channels,
    "attention_head_dim": CONFIG.head_dim,
    "num_attention_heads": CONFIG.audio_heads,
    "joint_attention_dim": SPECS.audio_text.width,
    "max_duration": 30,
    "audio_seq_len": 645,
    "text_encoder_name": "google/flan-t5-large",
}


def wan() -> Model:
    torch.manual_seed(1)
    return WAN(
        patch_size=(1, 2, 2),
        num_attention_heads=CONFIG.video_heads,
        attention_head_dim=CONFIG.head_dim,
        in_channels=SPECS.video.channels,
        out_channels=SPECS.video.channels,
        text_dim=SPECS.video_text.width,
        ffn_dim=CONFIG.video_ffn,
        num_layers=CONFIG.video_layers,
    ).eval()


def flux() -> Model:
    torch.manual_seed(2)
    return FLUX(
        in_channels=SPECS.audio.channels,
        num_layers=CONFIG.audio_double_layers,
        num_single_layers=CONFIG.audio_single_layers,
        attention_head_dim=CONFIG.head_dim,
        num_attention_heads=CONFIG.audio_heads,
        joint_attention_dim=SPECS.audio_text.width,
        pooled_projection_dim=CONFIG.audio_width,
        axes_dims_rope=audio_axes(CONFIG.head_dim),
    ).eval()


def wan_folder(root: Path, *, sharded: bool = False) -> Path:
    wan().save_pretrained(root / "transformer", max_shard_size="60KB" if sharded else "10GB")
    return root


def tangoflux_folder(root: Path, *, with_text_encoder: bool = True) -> Path:
    """TangoFlux's own layout."""
    root.mkdir(parents=True, exist_ok=True)
    width = SPECS.audio_text.width
    g = torch.Generator().manual_seed(3)
    tensors: dict[str, Tensor] = {
        f"transformer.{name}": value.clone() for name, value in flux().state_dict().items()
    }
    tensors |= {
        "fc.0.weight": torch.randn(CONFIG.audio_width, width, generator=g),
        "fc.0.bias": torch.randn(CONFIG.audio_width, generator=g),
        "duration_emebdder.time_positional_embedding.0.weights": torch.randn(128, generator=g),
        "duration_emebdder.time_positional_embedding.1.weight": torch.randn(
            width, 257, generator=g
        ),
        "duration_emebdder.time_positional_embedding.1.bias": torch.randn(width, generator=g),
    }
    if with_text_encoder:
        tensors["text_encoder.shared.weight"] = torch.randn(8, 4, generator=g)
    save_file(tensors, root / "tangoflux.safetensors")
    (root / "config.json").write_text(json.dumps(TANGOFLUX))
    return root


def edited(file: Path, **changes: Tensor | None) -> None:
    """A safetensors file with tensors replaced, added, or (None) removed; dots are __."""
    tensors = load_file(file)
    for key, value in changes.items():
        name = key.replace("__", ".")
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    save_file(tensors, file, metadata={"format": "pt"})
