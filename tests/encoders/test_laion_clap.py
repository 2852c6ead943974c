"""The package laion_clap and transformers' ClapModel on one checkpoint, converted between them.

laion_clap needs numpy below 2 and so an environment of its own, in which only this test is run:
`HF_HUB_OFFLINE=1 pytest tests/encoders/test_laion_clap.py`. Its import would fetch tokenizers.
"""

import importlib
import importlib.util
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from avdata.encoders.clap import Clap
from tests.encoders.embedders import tokenizer

if importlib.util.find_spec("laion_clap") is None or os.environ.get("HF_HUB_OFFLINE") != "1":
    pytest.skip("needs laion_clap and HF_HUB_OFFLINE=1", allow_module_level=True)
pytestmark = pytest.mark.filterwarnings("ignore")
RENAMED = [
    (r"\.attn\.qkv\.", ".attention.self.qkv."),
    (r"\.attn\.relative", ".attention.self.relative"),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"^bn0\.", "batch_norm."),
]


def converted(branch: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """Weights of laion_clap's HTSAT under the names that ClapModel has for them."""
    for theirs, value in branch.items():
        name = theirs
        for old, new in RENAMED:
            name = re.sub(old, new, name)
        if ".qkv." in name:
            for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                yield name.replace("qkv", part), third
        else:
            yield name, value


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    """laion_clap's audio branch and projection, random, and the folder of the same ClapModel."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("laion_clap")
        htsat = importlib.import_module("clap_module.htsat")
    transformers: Any = importlib.import_module("transformers")
    torch.manual_seed(0)
    plain = {"model_type": "HTSAT", "model_name": "tiny", "sample_rate": 48_000, "mel_bins": 64}
    plain |= {"window_size": 1024, "hop_size": 480, "fmin": 50, "fmax": 14_000}
    plain |= {"audio_length": 1024, "clip_samples": 480_000, "class_num": 527}
    branch = htsat.create_htsat_model(
        importlib.import_module("clap_module.model").CLAPAudioCfp(**plain)
    )
    linears = torch.nn.Linear(768, 512), torch.nn.Linear(512, 512)
    projection = torch.nn.Sequential(linears[0], torch.nn.ReLU(), linears[1])
    text = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"intermediate_size": 32, "max_position_embeddings": 40}
    model = transformers.ClapModel(transformers.ClapConfig(text_config=text))
    own = {f"audio_model.audio_encoder.{n}": v for n, v in converted(branch.state_dict())}
    for number, linear in enumerate(linears, 1):
        own[f"audio_projection.linear{number}.weight"] = linear.weight.data
        own[f"audio_projection.linear{number}.bias"] = linear.bias.data
    wanted = {n for n in model.state_dict() if n.startswith("audio_")}
    lacking = wanted - set(own)
    assert lacking == set()
    model.load_state_dict({n: own[n] for n in wanted}, strict=False)
    folder = tmp_path_factory.mktemp("models") / "clap"
    model.save_pretrained(folder)
    transformers.ClapFeatureExtractor(
        truncation="rand_trunc", frequency_min=50, frequency_max=14_000
    ).save_pretrained(folder)
    tokenizer(transformers, folder)
    return branch.eval(), projection.eval(), folder


@pytest.mark.parametrize("seconds", [1.0, 2.0, 5.0, 10.0])
def test_they_give_the_same_embedding_of_a_sound(
    both: tuple[Any, Any, Path], seconds: float
) -> None:
    branch, projection, folder = both
    g = torch.Generator().manual_seed(0)
    time = torch.arange(round(48_000 * seconds)) / 48_000
    sound = 0.3 * torch.sin(2 * torch.pi * 440 * time) * torch.rand(len(time), generator=g)
    data = importlib.import_module("laion_clap.training.data")
    config = {"audio_cfg": None, "sample_rate": 48_000, "hop_size": 480, "window_size": 1024}
    given = data.get_audio_features({}, sound, 480_000, "rand_trunc", "repeatpad", config)
    with torch.no_grad():
        told = branch({"waveform": given["waveform"][None]}, device=torch.device("cpu"))
        theirs = torch.nn.functional.normalize(projection(told["embedding"]), dim=-1)
        other = branch(
            {"waveform": -0.2 * given["waveform"][None].roll(99)}, device=torch.device("cpu")
        )
        other = torch.nn.functional.normalize(projection(other["embedding"]), dim=-1)
    ours = Clap(str(folder)).open(torch.device("cpu")).sounds(sound[None])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert not torch.allclose(other, theirs, rtol=0, atol=1e-4)
