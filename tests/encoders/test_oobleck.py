from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from avdata.encoders.encoder import AudioEncoder
from avdata.encoders.oobleck import OobleckAudio
from avdata.errors import UsageError
from tests.encoders.checkpoints import Model, oobleck

CPU = torch.device("cpu")
HOP = 2048

Sound = Float[Tensor, "b 2 m"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("oobleck")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return oobleck(folder)


@pytest.fixture(scope="module")
def encoder(folder: Path, model: Model) -> AudioEncoder:
    assert model is not None
    return OobleckAudio(str(folder)).open(CPU)


def noise(batch: int = 1, samples: int = 4 * HOP) -> Sound:
    g = torch.Generator().manual_seed(0)
    return 0.2 * torch.randn(batch, 2, samples, generator=g).clamp(-4, 4)


def test_it_is_an_audio_encoder(encoder: AudioEncoder) -> None:
    assert isinstance(encoder, AudioEncoder)
    spec = encoder.spec
    found = (spec.channels, spec.hop, spec.sample_rate, spec.audio_channels)
    assert found == (6, HOP, 44_100, 2)


@pytest.mark.parametrize("samples", [HOP, 3 * HOP, 88_200])
def test_latents_are_those_of_the_library(
    model: Model, encoder: AudioEncoder, samples: int
) -> None:
    sound = noise(samples=samples)
    whole = sound[..., : samples // HOP * HOP]
    with torch.no_grad():
        expected = model.encode(whole).latent_dist.mean
    latents = encoder.encode(sound)
    assert latents.shape == (1, 6, encoder.spec.latent_length(samples))
    assert latents.dtype == torch.float32
    torch.testing.assert_close(latents, expected, atol=1e-5, rtol=0)


def test_sound_is_that_of_the_library(model: Model, encoder: AudioEncoder) -> None:
    latents = encoder.encode(noise())
    with torch.no_grad():
        expected = model.decode(latents).sample
    decoded = encoder.decode(latents)
    assert decoded.shape == noise().shape
    torch.testing.assert_close(decoded, expected.clamp(-1, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("samples", [HOP + 1, 3 * HOP - 1])
def test_a_tail_counts_for_nothing(encoder: AudioEncoder, samples: int) -> None:
    sound = noise(samples=samples)
    length = encoder.spec.latent_length(samples)
    assert torch.equal(encoder.encode(sound), encoder.encode(sound[..., : length * HOP]))


def test_less_than_a_hop_is_refused(encoder: AudioEncoder) -> None:
    with pytest.raises(ValueError, match="100 samples are less than a hop of 2048"):
        encoder.encode(noise(samples=100))


def test_sounds_of_a_batch_do_not_meet(folder: Path, encoder: AudioEncoder) -> None:
    sound = noise(batch=2)
    for one in (encoder, OobleckAudio(str(folder), sample_seed=3).open(CPU)):
        apart = torch.cat([one.encode(sound[k : k + 1]) for k in range(2)])
        torch.testing.assert_close(one.encode(sound), apart, atol=1e-5, rtol=0)


def test_drawn_latents_lie_about_the_mean_as_the_posterior_says(
    folder: Path, model: Model, encoder: AudioEncoder
) -> None:
    sound = noise(samples=100 * HOP)
    drawn = OobleckAudio(str(folder), sample_seed=3).open(CPU).encode(sound)
    with torch.no_grad():
        posterior = model.encode(sound).latent_dist
    standard = (drawn - encoder.encode(sound)) / posterior.std
    assert abs(float(standard.mean())) < 0.15
    assert float(standard.std()) == pytest.approx(1.0, abs=0.1)


def test_noise_depends_on_the_seed_and_on_the_sound(folder: Path, encoder: AudioEncoder) -> None:
    one, other = (OobleckAudio(str(folder), sample_seed=seed) for seed in (0, 1))
    sound, quieter = noise(), 0.999 * noise()
    drawn = one.open(CPU).encode(sound)
    assert torch.equal(one.open(CPU).encode(sound), drawn)
    assert not torch.allclose(other.open(CPU).encode(sound), drawn, atol=0.01)
    near = encoder.encode(quieter) - encoder.encode(sound)
    assert float(near.abs().max()) < 0.01
    assert not torch.allclose(one.open(CPU).encode(quieter), drawn, atol=0.01)
    assert len({one.spec().digest, other.spec().digest, encoder.spec.digest}) == 3


def test_a_model_that_is_not_stereo_is_refused(tmp_path: Path) -> None:
    oobleck(tmp_path, audio_channels=1)
    with pytest.raises(UsageError, match="audio_channels is 1; give a stereo model"):
        OobleckAudio(str(tmp_path)).open(CPU)


def test_a_seed_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="sample_seed"):
        OobleckAudio("anywhere", sample_seed=-1)
