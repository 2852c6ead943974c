import pytest
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from avdata.encoders.block_transform import BlockTransform
from avdata.encoders.encoder import VideoEncoder

ENCODER = BlockTransform().open(torch.device("cpu"))

Frames = UInt8[Tensor, "b n h w 3"]


def noise(num_frames: int = 9, height: int = 32, width: int = 48, seed: int = 0) -> Frames:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (1, num_frames, height, width, 3), generator=g).to(torch.uint8)


def smooth(num_frames: int = 9, height: int = 64, width: int = 96) -> Frames:
    """A coloured gradient that drifts slowly."""
    t = torch.arange(num_frames).view(-1, 1, 1)
    y = torch.linspace(0, 1, height).view(1, -1, 1)
    x = torch.linspace(0, 1, width).view(1, 1, -1)
    red = 128 + 80 * torch.sin(2 * x + y + 0.05 * t)
    green = 128 + 60 * torch.cos(2 * y - 0.05 * t) + 0 * x
    blue = 100 + 60 * (x + y) / 2 + 0 * t
    return torch.stack([red, green, blue], dim=-1).round().to(torch.uint8)[None]


def roundtrip(frames: Frames) -> Frames:
    return ENCODER.decode(ENCODER.encode(frames))


def largest_error(one: Frames, other: Frames) -> int:
    return int((one.int() - other.int()).abs().max())


def mean_square(one: Frames, other: Frames) -> float:
    return float((one.float() - other.float()).square().mean())


def group(frame: int) -> int:
    return (frame + ENCODER.spec.stride_time - 1) // ENCODER.spec.stride_time


def test_it_is_a_video_encoder() -> None:
    assert isinstance(ENCODER, VideoEncoder)


@pytest.mark.parametrize("sizes", [(1, 16, 16), (5, 32, 48), (13, 48, 16)])
def test_shapes_are_those_of_the_spec(sizes: tuple[int, int, int]) -> None:
    frames = noise(*sizes)
    latents = ENCODER.encode(frames)
    assert tuple(latents.shape[1:]) == ENCODER.spec.latent_shape(*sizes)
    assert ENCODER.decode(latents).shape == frames.shape


def test_sizes_that_do_not_divide_are_refused() -> None:
    for sizes in ((4, 32, 32), (5, 40, 32), (5, 32, 40)):
        with pytest.raises(ValueError, match="is not a multiple"):
            ENCODER.encode(noise(*sizes))


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (13, 200, 77), (255, 0, 128)])
def test_a_plain_picture_comes_back_exactly(colour: tuple[int, int, int]) -> None:
    frames = torch.tensor(colour, dtype=torch.uint8).expand(1, 9, 32, 48, 3)
    assert torch.equal(roundtrip(frames), frames)


def test_what_was_kept_once_is_kept_for_ever() -> None:
    """Decoding after encoding is a projection, but for rounding and clamping."""
    frames = noise() // 4 + 96  # Far from the ends of the scale.
    once = roundtrip(frames)
    assert largest_error(roundtrip(once), once) <= 1


def test_latents_come_back_from_their_picture() -> None:
    g = torch.Generator().manual_seed(0)
    latents = 0.2 * torch.randn(1, *ENCODER.spec.latent_shape(9, 32, 48), generator=g)
    # The first frame is still: its temporal channels are those of a still picture.
    latents[:, :, :1] = ENCODER.encode(ENCODER.decode(latents))[:, :, :1]
    torch.testing.assert_close(ENCODER.encode(ENCODER.decode(latents)), latents, atol=0.05, rtol=0)


def test_smooth_pictures_are_nearly_preserved_and_noise_is_not() -> None:
    frames = smooth()
    assert mean_square(roundtrip(frames), frames) < 6  # Beyond 40 dB.
    assert mean_square(roundtrip(noise()), noise()) > 500


def test_no_other_picture_of_these_latents_is_nearer() -> None:
    """An orthogonal projection: what is lost is at right angles to what is kept."""
    frames = noise() // 4 + 96
    kept = roundtrip(frames).double()
    lost = frames.double() - kept
    cosine = (lost * (kept - kept.mean())).sum() / (lost.norm() * (kept - kept.mean()).norm())
    assert abs(float(cosine)) < 0.02


@pytest.mark.parametrize("changed", range(9))
def test_a_frame_changes_the_latents_of_its_group_only(changed: int) -> None:
    frames, other = noise(), noise()
    other[:, changed] = 255 - other[:, changed]
    differs = (ENCODER.encode(frames) != ENCODER.encode(other)).any(dim=(0, 1, 3, 4))
    assert differs.nonzero().flatten().tolist() == [group(changed)]


@pytest.mark.parametrize("changed", range(3))
def test_a_latent_frame_changes_the_frames_of_its_group_only(changed: int) -> None:
    latents = ENCODER.encode(noise() // 4 + 96)
    other = latents.clone()
    other[:, :, changed] += 1
    differs = (ENCODER.decode(latents) != ENCODER.decode(other)).flatten(2).any(dim=2)[0]
    assert {group(int(k)) for k in differs.nonzero()} == {changed}


def test_the_past_is_encoded_the_same_whatever_follows() -> None:
    frames = noise(13)
    for count in (1, 5, 9):
        torch.testing.assert_close(
            ENCODER.encode(frames[:, :count]), ENCODER.encode(frames)[:, :, : group(count - 1) + 1]
        )


def test_a_block_is_encoded_the_same_wherever_it_lies() -> None:
    frames = noise(5, 48, 48)
    latents = ENCODER.encode(frames)
    moved = ENCODER.encode(frames.roll((16, 32), dims=(2, 3)))
    torch.testing.assert_close(moved, latents.roll((1, 2), dims=(3, 4)))


def test_a_still_picture_has_the_same_latents_in_every_frame() -> None:
    latents = ENCODER.encode(noise(1).expand(1, 9, 32, 48, 3))
    torch.testing.assert_close(latents, latents[:, :, :1].expand_as(latents), atol=1e-4, rtol=1e-4)


def test_clips_of_a_batch_do_not_meet() -> None:
    one, two = noise(seed=1), noise(seed=2)
    both = ENCODER.encode(torch.cat([one, two]))
    torch.testing.assert_close(both, torch.cat([ENCODER.encode(one), ENCODER.encode(two)]))


def test_any_latents_decode() -> None:
    wild: Float[Tensor, "1 c t h w"] = 100 * torch.randn(
        1, *ENCODER.spec.latent_shape(5, 16, 16), generator=torch.Generator().manual_seed(0)
    )
    assert ENCODER.decode(wild).dtype == torch.uint8


def test_the_spec_is_the_same_every_time() -> None:
    assert BlockTransform().open(torch.device("cpu")).spec == ENCODER.spec
