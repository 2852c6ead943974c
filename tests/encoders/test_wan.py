import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from avdata.encoders.encoder import VideoEncoder
from avdata.encoders.wan import OpenWan, WanVideo
from tests.encoders.checkpoints import Model, wan21, wan22

CPU = torch.device("cpu")
Frames = UInt8[Tensor, "b n h w 3"]
MAKERS: list[Callable[[Path], Model]] = [wan22, wan21]
GEOMETRY = {"wan22": (48, 4, 16, 16), "wan21": (16, 4, 8, 8)}


@pytest.fixture(scope="module", params=MAKERS, ids=[maker.__name__ for maker in MAKERS])
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Model, OpenWan]:
    """The library's model, and ours from its files."""
    folder = tmp_path_factory.mktemp(request.param.__name__)
    model = request.param(folder)
    encoder = WanVideo(str(folder)).open(CPU)
    spec = encoder.spec
    found = (spec.channels, spec.stride_time, spec.stride_height, spec.stride_width)
    assert found == GEOMETRY[request.param.__name__]
    return model, encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wan2.2's."""
    root = tmp_path_factory.mktemp("wan")
    wan22(root)
    return root


def noise(batch: int = 1, num_frames: int = 9, height: int = 32, width: int = 48) -> Frames:
    g = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, num_frames, height, width, 3), generator=g).to(torch.uint8)


def by_the_library(model: Model, frames: Frames) -> Float[Tensor, "b c t h w"]:
    """As Wan's own pipeline does it."""
    pixels = frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    with torch.no_grad():
        mean = model.encode(pixels).latent_dist.mean
    return torch.stack(
        [
            (mean[:, k] - model.config.latents_mean[k]) / model.config.latents_std[k]
            for k in range(mean.shape[1])
        ],
        dim=1,
    )


def test_it_is_a_video_encoder(made: tuple[Model, OpenWan]) -> None:
    assert isinstance(made[1], VideoEncoder)


@pytest.mark.parametrize("sizes", [(1, 16, 16), (5, 32, 48), (13, 48, 16)])
def test_latents_are_those_of_the_library_normalised(
    made: tuple[Model, OpenWan], sizes: tuple[int, int, int]
) -> None:
    model, encoder = made
    frames = noise(1, *sizes)
    latents = encoder.encode(frames)
    assert latents.dtype == torch.float32
    assert tuple(latents.shape[1:]) == encoder.spec.latent_shape(*sizes)
    torch.testing.assert_close(latents, by_the_library(model, frames), atol=1e-5, rtol=0)


def test_frames_are_those_of_the_library(made: tuple[Model, OpenWan]) -> None:
    model, encoder = made
    frames = noise()
    pixels = frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    with torch.no_grad():
        expected = model.decode(model.encode(pixels).latent_dist.mean).sample
    decoded = encoder.decode(encoder.encode(frames))
    assert decoded.shape == frames.shape
    values = decoded.permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    assert float((values - expected).abs().max()) <= 0.51 / 127.5  # Rounded to a level.


def test_clips_of_a_batch_do_not_meet(made: tuple[Model, OpenWan]) -> None:
    _, encoder = made
    frames = noise(batch=2)
    apart = torch.cat([encoder.encode(one[None]) for one in frames])
    torch.testing.assert_close(encoder.encode(frames), apart, atol=1e-5, rtol=0)


def test_sizes_that_do_not_divide_are_refused(made: tuple[Model, OpenWan]) -> None:
    """The library would drop the last frames without a word."""
    _, encoder = made
    for sizes in ((4, 32, 32), (8, 32, 32), (5, 36, 32), (5, 32, 36)):
        with pytest.raises(ValueError, match="is not a multiple"):
            encoder.encode(noise(1, *sizes))


def test_tiles_are_nearly_the_whole(folder: Path) -> None:
    """And another spec, for nearly is not equal."""
    plain, tiled = WanVideo(str(folder)), WanVideo(str(folder), tiled=True)
    assert plain.spec().digest != tiled.spec().digest
    small, large = noise(height=64, width=64), noise(num_frames=1, height=16, width=640)
    one, other = plain.open(CPU), tiled.open(CPU)
    assert torch.equal(one.encode(small), other.encode(small))
    whole, pieces = one.encode(large), other.encode(large)
    assert pieces.shape == whole.shape
    assert other.decode(pieces).shape == large.shape
    assert 0 < float((pieces - whole).abs().mean()) < 0.3 * float(whole.std())


def test_bfloat16_is_near_and_another_spec(folder: Path) -> None:
    half = dataclasses.replace(WanVideo(str(folder)), dtype="bfloat16").open(CPU)
    whole = WanVideo(str(folder)).open(CPU)
    assert half.spec.digest != whole.spec.digest
    latents = half.encode(noise())
    assert latents.dtype == torch.float32
    torch.testing.assert_close(latents, whole.encode(noise()), atol=0.1, rtol=0.1)
    assert half.decode(latents).shape == noise().shape


def test_a_spec_is_told_without_loading(folder: Path) -> None:
    assert WanVideo(str(folder)).spec() == WanVideo(str(folder)).open(CPU).spec
