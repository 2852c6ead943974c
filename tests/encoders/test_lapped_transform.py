import math

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from avdata.encoders.encoder import AudioEncoder
from avdata.encoders.lapped_transform import BLOCK, LappedTransform

ENCODER = LappedTransform().open(torch.device("cpu"))
RATE, HOP = ENCODER.spec.sample_rate, ENCODER.spec.hop
LENGTH = 8 * HOP

Sound = Float[Tensor, "b 2 m"]


def noise(seed: int = 0, samples: int = LENGTH) -> Sound:
    g = torch.Generator().manual_seed(seed)
    return 0.2 * torch.randn(1, 2, samples, generator=g).clamp(-4, 4)


def tone(hz: float, samples: int = LENGTH) -> Sound:
    wave = 0.3 * torch.sin(2 * math.pi * hz / RATE * torch.arange(samples) + 0.3)
    return wave.expand(1, 2, samples).clone()


def roundtrip(sound: Sound) -> Sound:
    return ENCODER.decode(ENCODER.encode(sound))


def kept_energy(sound: Sound) -> float:
    """Share of the energy that comes back, away from the ends."""
    inner = slice(HOP, -HOP)
    lost = (roundtrip(sound) - sound)[..., inner].square().sum()
    return 1 - float(lost / sound[..., inner].square().sum())


def test_it_is_an_audio_encoder() -> None:
    assert isinstance(ENCODER, AudioEncoder)


@pytest.mark.parametrize("samples", [HOP, HOP + 1, 3 * HOP - 1, 5 * HOP])
def test_the_length_is_whole_hops_and_a_tail_counts_for_nothing(samples: int) -> None:
    sound = noise(samples=samples)
    latents = ENCODER.encode(sound)
    length = ENCODER.spec.latent_length(samples)
    assert latents.shape == (1, ENCODER.spec.channels, length)
    assert ENCODER.decode(latents).shape == (1, 2, ENCODER.spec.num_samples(length))
    assert torch.equal(ENCODER.encode(sound[..., : length * HOP]), latents)


def test_silence_stays_silence() -> None:
    silence = torch.zeros(1, 2, LENGTH)
    assert not ENCODER.encode(silence).any()
    assert not roundtrip(silence).any()


def test_a_louder_sound_has_larger_latents_but_not_in_proportion() -> None:
    faint, loud = ENCODER.encode(0.01 * noise(1)), ENCODER.encode(noise(1))
    assert torch.equal(faint.sign(), loud.sign())
    assert (loud.abs() >= faint.abs()).all()
    faint, loud = ENCODER.encode(0.01 * tone(150)), ENCODER.encode(tone(150))
    assert loud.norm() < 50 * faint.norm()


def test_what_comes_back_is_a_linear_map_of_the_sound() -> None:
    one, other = 0.3 * noise(1), 0.3 * noise(2)
    mixed = roundtrip(0.7 * one - 0.2 * other)
    expected = 0.7 * roundtrip(one) - 0.2 * roundtrip(other)
    torch.testing.assert_close(mixed, expected, atol=1e-4, rtol=1e-3)


def test_what_was_kept_once_is_kept_for_ever() -> None:
    once = roundtrip(noise())
    torch.testing.assert_close(roundtrip(once), once, atol=1e-5, rtol=0)


def test_latents_come_back_from_their_sound() -> None:
    g = torch.Generator().manual_seed(0)
    latents = 0.02 * torch.randn(2, ENCODER.spec.channels, 6, generator=g)
    torch.testing.assert_close(ENCODER.encode(ENCODER.decode(latents)), latents)


@pytest.mark.parametrize("hz", [60, 150, 300, 450, 550])
def test_low_tones_come_back(hz: float) -> None:
    assert kept_energy(tone(hz)) > 0.9


@pytest.mark.parametrize("hz", [900, 2000, 8000])
def test_high_tones_are_lost(hz: float) -> None:
    assert kept_energy(tone(hz)) < 0.1


@pytest.mark.parametrize("at", [HOP, 3 * HOP + 700, 5 * HOP + 1900])
def test_a_click_comes_back_at_its_time_within_a_block(at: int) -> None:
    sound = torch.zeros(1, 2, LENGTH)
    sound[..., at : at + 40] = 0.9
    heard = roundtrip(sound).abs().amax(dim=(0, 1))
    assert abs(int(heard.argmax()) - at) <= BLOCK
    # Folding reaches half a block over either border of the click's own block.
    spread = (heard > 1e-4).nonzero().flatten()
    assert at - 2 * BLOCK <= int(spread.min())
    assert int(spread.max()) <= at + 2 * BLOCK + 40


@pytest.mark.parametrize("hop", [0, 3, 7])
def test_a_change_reaches_the_latents_of_its_own_hop_and_its_neighbours_only(hop: int) -> None:
    one, other = noise(), noise()
    other[..., hop * HOP : (hop + 1) * HOP] *= 0.5
    differs = (ENCODER.encode(one) != ENCODER.encode(other)).any(dim=(0, 1)).nonzero().flatten()
    assert {hop} <= set(differs.tolist()) <= {hop - 1, hop, hop + 1}


def test_a_sound_that_moves_by_a_hop_moves_by_a_latent() -> None:
    sound = torch.zeros(1, 2, LENGTH)
    sound[..., 2 * HOP : 4 * HOP] = noise(samples=2 * HOP)
    latents = ENCODER.encode(sound)
    torch.testing.assert_close(ENCODER.encode(sound.roll(HOP, -1)), latents.roll(1, -1))


def test_left_and_right_stay_apart() -> None:
    """The lowest tones carry a side, too; swapping the channels swaps what comes back."""
    sound = tone(40)
    sound[:, 1] = 0
    back = roundtrip(sound)
    assert back[:, 0].square().sum() > 20 * back[:, 1].square().sum()
    torch.testing.assert_close(roundtrip(sound.flip(1)), back.flip(1), atol=1e-6, rtol=1e-5)


def test_the_sound_that_comes_out_is_in_range() -> None:
    g = torch.Generator().manual_seed(0)
    wild = 50 * torch.randn(1, ENCODER.spec.channels, 4, generator=g)
    assert ENCODER.decode(wild).abs().max() <= 1


def test_sounds_of_a_batch_do_not_meet() -> None:
    one, two = noise(1), noise(2)
    both = ENCODER.encode(torch.cat([one, two]))
    torch.testing.assert_close(both, torch.cat([ENCODER.encode(one), ENCODER.encode(two)]))


def test_the_spec_is_the_same_every_time() -> None:
    assert LappedTransform().open(torch.device("cpu")).spec == ENCODER.spec
