"""The published configurations with random weights: sizes, and the shapes of arXiv 2512.02457."""

from pathlib import Path

import pytest
import torch

from avdata.encoders.oobleck import OobleckAudio
from avdata.encoders.wan import WanVideo
from tests.encoders.checkpoints import Model, diffusers, transformers, without_warnings

CPU = torch.device("cpu")
WAN22 = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "in_channels": 12,
    "out_channels": 12,
    "is_residual": True,
    "patch_size": 2,
    "scale_factor_spatial": 16,
    "scale_factor_temporal": 4,
    "latents_mean": [0.0] * 48,
    "latents_std": [1.0] * 48,
}
UMT5_XXL = {
    "vocab_size": 256_384,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10_240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}
FLAN_T5_LARGE = {
    "vocab_size": 32_128,
    "d_model": 1024,
    "d_kv": 64,
    "d_ff": 2816,
    "num_layers": 24,
    "num_heads": 16,
    "feed_forward_proj": "gated-gelu",
}


def millions(model: Model) -> float:
    return sum(int(weight.numel()) for weight in model.parameters()) / 1e6


def test_parameters_are_as_many_as_are_published() -> None:
    with torch.device("meta"), without_warnings():
        wan22 = diffusers.AutoencoderKLWan(**WAN22)
        wan21 = diffusers.AutoencoderKLWan()
        oobleck = diffusers.AutoencoderOobleck()
        umt5 = transformers.UMT5EncoderModel(transformers.UMT5Config(**UMT5_XXL))
        t5 = transformers.T5EncoderModel(transformers.T5Config(**FLAN_T5_LARGE))
    assert millions(wan22) == pytest.approx(704.7, abs=0.05)
    assert millions(wan21) == pytest.approx(126.9, abs=0.05)
    assert millions(oobleck) == pytest.approx(156.1, abs=0.05)
    assert millions(umt5) == pytest.approx(5681, abs=1)
    assert millions(t5) == pytest.approx(341.2, abs=0.1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_wan22_vae_encodes_a_clip_of_the_paper(tmp_path: Path) -> None:
    torch.manual_seed(0)
    diffusers.AutoencoderKLWan(**WAN22).save_pretrained(tmp_path / "vae")
    encoder = WanVideo(str(tmp_path)).open(CPU)
    assert encoder.spec.latent_shape(33, 192, 320) == (48, 9, 12, 20)
    assert encoder.spec.latent_shape(81, 192, 320) == (48, 21, 12, 20)
    frames = torch.randint(0, 256, (1, 33, 192, 320, 3)).to(torch.uint8)
    latents = encoder.encode(frames)
    assert latents.shape == (1, 48, 9, 12, 20)
    assert latents.isfinite().all()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_oobleck_vae_encodes_and_decodes_the_clips_of_the_paper(tmp_path: Path) -> None:
    torch.manual_seed(0)
    with without_warnings():
        diffusers.AutoencoderOobleck().save_pretrained(tmp_path)
    encoder = OobleckAudio(str(tmp_path)).open(CPU)
    for samples, length in ((88_200, 43), (220_500, 107)):
        latents = encoder.encode(0.1 * torch.randn(1, 2, samples))
        assert latents.shape == (1, 64, length)
        assert encoder.spec.latent_length(samples) == length
    decoded = encoder.decode(latents)
    assert decoded.shape == (1, 2, 107 * 2048)
    assert decoded.isfinite().all()
