"""Tiny random models that read pictures, sounds or both and write, by transformers' own classes.

They write letters, and half of those end an answer, so that most are short.
"""

import importlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split

Model = Any
transformers: Any = importlib.import_module("transformers")
LETTERS = "abcdefghijklmnopqrstuvwxyz ,.'\n"
ENDS = "aeiouy"
SPECIAL = ["<pad>", "<unk>", "<|image|>", "<|audio|>", "<|video|>"]
SPECIAL += [f"<|{what}_{end}|>" for what in ("vision", "audio") for end in ("bos", "eos")]
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": len(SPECIAL) + len(LETTERS),
    "initializer_range": 0.5,
    "pad_token_id": 0,
}
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_bos|><|image|><|vision_eos|>"
    "{% elif part['type'] == 'audio' %}<|audio_bos|><|audio|><|audio_eos|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}\n{% endif %}"
)


def tokenizer() -> Model:
    pieces = Tokenizer(
        WordLevel({name: k for k, name in enumerate([*SPECIAL, *LETTERS])}, unk_token="<unk>")
    )
    pieces.pre_tokenizer = Split("", "isolated")
    pieces.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL])
    named = {f"{name.strip('<|>')}_token": name for name in SPECIAL[2:]}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=pieces, pad_token="<pad>", unk_token="<unk>", extra_special_tokens=named
    )


def saved(model: Model, processor: Model, folder: Path) -> Model:
    words = processor.tokenizer
    model.generation_config.eos_token_id = words.convert_tokens_to_ids(list(ENDS))
    model.generation_config.pad_token_id = 0
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model.eval()


def llava(folder: Path, seed: int = 0) -> Model:
    """Reads pictures."""
    torch.manual_seed(seed)
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**vision, initializer_range=0.5),
        text_config=transformers.LlamaConfig(**TEXT),
        image_token_index=SPECIAL.index("<|image|>"),
        vision_feature_layer=-1,
    )
    size = {"height": 28, "width": 28}
    processor = transformers.LlavaProcessor(
        transformers.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=size),
        tokenizer(),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
        image_token="<|image|>",
    )
    return saved(transformers.LlavaForConditionalGeneration(config), processor, folder)


def qwen2_audio(folder: Path, seed: int = 0) -> Model:
    """Reads sounds."""
    torch.manual_seed(seed)
    heard: dict[str, Any] = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2}
    heard |= {"encoder_ffn_dim": 16, "num_mel_bins": 80, "initializer_range": 0.5}
    text = {name: value for name, value in TEXT.items() if name != "pad_token_id"}
    config = transformers.Qwen2AudioConfig(
        audio_config=transformers.Qwen2AudioEncoderConfig(**heard),
        text_config=transformers.Qwen2Config(**text),
        audio_token_index=SPECIAL.index("<|audio|>"),
    )
    processor = transformers.Qwen2AudioProcessor(
        transformers.WhisperFeatureExtractor(),
        tokenizer(),
        chat_template=TEMPLATE,
        audio_token="<|audio|>",
    )
    return saved(transformers.Qwen2AudioForConditionalGeneration(config), processor, folder)


def omni(folder: Path, seed: int = 0) -> Model:
    """Reads pictures and sounds; as it is published, with weights of what speaks beside it."""
    torch.manual_seed(seed)
    heard: dict[str, Any] = {
        "d_model": 16,
        "encoder_layers": 1,
        "encoder_attention_heads": 2,
        "num_mel_bins": 80,
    }
    heard |= {"encoder_ffn_dim": 16, "output_dim": 32, "n_window": 50}
    seen: dict[str, Any] = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16}
    seen |= {"out_hidden_size": 32, "fullatt_block_indexes": [0]}
    text: dict[str, Any] = {**TEXT}
    text["rope_parameters"] = {"rope_type": "default", "mrope_section": [2, 3, 3]}
    config = transformers.Qwen2_5OmniConfig(
        thinker_config={
            "audio_config": heard,
            "vision_config": seen,
            "text_config": text,
            "audio_token_index": SPECIAL.index("<|audio|>"),
            "image_token_index": SPECIAL.index("<|image|>"),
            "video_token_index": SPECIAL.index("<|video|>"),
            "vision_start_token_id": SPECIAL.index("<|vision_bos|>"),
            "vision_end_token_id": SPECIAL.index("<|vision_eos|>"),
            "audio_start_token_id": SPECIAL.index("<|audio_bos|>"),
            "audio_end_token_id": SPECIAL.index("<|audio_eos|>"),
            "initializer_range": 0.5,
        },
        enable_audio_output=False,
    )
    processor = transformers.Qwen2_5OmniProcessor(
        transformers.Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=56 * 56),
        transformers.Qwen2VLVideoProcessor(),
        transformers.WhisperFeatureExtractor(),
        tokenizer(),
        chat_template=TEMPLATE,
    )
    model = saved(transformers.Qwen2_5OmniForConditionalGeneration(config), processor, folder)
    model.thinker.generation_config = model.generation_config
    file = folder / "model.safetensors"
    spoken = {"talker.model.norm.weight": torch.ones(3), "token2wav.bias": torch.ones(3)}
    save_file(load_file(file) | spoken, file, {"format": "pt"})
    return model
