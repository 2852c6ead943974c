"""What variants of the generated world do to its sound, against their truth."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Float, Float32
from numpy import ndarray

from avdata.pipeline.world.corpus import WorldConfig, generate, make, read_truth, truth_path
from avdata.pipeline.world.distractors import SOUNDS
from avdata.pipeline.world.scene import SAMPLE_RATE
from avdata.pipeline.world.scenes import KINDS
from avdata.pipeline.world.truth import ImpulseSound, Truth
from avdata.pipeline.world.variants import MIXED, NAMES, VariantShares

PLAIN = WorldConfig(height=32, width=54)
STEP = SAMPLE_RATE // 1000
AUDIBLE = [kind for kind in KINDS if kind != "silent"]
TOUCHING = [kind for kind in AUDIBLE if kind != "slide"]


def config(kind: str, *names: str) -> WorldConfig:
    shares = VariantShares(**dict.fromkeys(names, 1.0))
    return dataclasses.replace(PLAIN, kinds=(kind,), variants=shares)


def edges(samples: Float32[ndarray, "2 m"]) -> Float[ndarray, " n"]:
    """High frequencies of each millisecond: what rings lies far below."""
    rough = np.abs(np.diff(samples.astype(float), n=3)).sum(axis=0)
    levels: Float[ndarray, " n"] = rough[: len(rough) // STEP * STEP].reshape(-1, STEP).mean(axis=1)
    return levels


def sudden(samples: Float32[ndarray, "2 m"]) -> list[float]:
    """Times at which the level is far over all of the 25 ms before."""
    levels, found = edges(samples), list[float]()
    for k in range(25, len(levels)):
        before = levels[k - 25 : k].max()
        if levels[k] > max(3 * before, 0.02) and (not found or k / 1000 - found[-1] > 0.03):
            found.append((k + 0.5) * STEP / SAMPLE_RATE)
    return found


def sounding(truth: Truth) -> list[float]:
    heard = [contact.t_heard for contact in truth.contacts if contact.t_heard is not None]
    return sorted([*heard, *(impulse.t for impulse in truth.other_impulses)])


@pytest.mark.parametrize("kind", AUDIBLE)
@pytest.mark.parametrize(
    "names", [(), ("lag",), ("distractors",), ("wrong_sound",), ("music", "distractors", "lag")]
)
def test_every_sudden_sound_is_a_contact_or_listed(kind: str, names: tuple[str, ...]) -> None:
    for index in range(2):
        video = make(config(kind, *names), index)
        listed = sounding(video.truth)
        found = sudden(video.samples)
        assert all(min(abs(t - one) for one in listed) < 0.012 for t in found), (found, listed)
        if "music" not in names:  # It hides what is soft.
            assert all(min(abs(t - one) for one in found) < 0.012 for t in listed), (found, listed)


@pytest.mark.parametrize("kind", TOUCHING)
@pytest.mark.parametrize("index", range(2))
def test_the_sound_is_late_by_the_lag_to_the_sample(kind: str, index: int) -> None:
    plain, lagged = (make(config(kind, *names), index) for names in ((), ("lag",)))
    truth = lagged.truth
    np.testing.assert_array_equal(plain.frames, lagged.frames)
    assert truth.sound_lag_ms is not None
    assert abs(truth.sound_lag_ms) >= 40
    one, other = plain.samples[0].astype(float), lagged.samples[0].astype(float)
    size = 2 * len(one)
    agreement = np.fft.irfft(np.fft.rfft(other, size) * np.fft.rfft(one, size).conj(), size)
    at = int(agreement.argmax())
    assert (at if at < len(one) else at - size) == truth.sound_lag_ms * SAMPLE_RATE / 1000
    for contact in truth.contacts:
        shifted = contact.t + truth.sound_lag_ms / 1000
        assert contact.t_heard == (shifted if 0 <= shifted < truth.seconds - 0.05 else None)
    assert [dataclasses.replace(c, t_heard=c.t) for c in truth.contacts] == plain.truth.contacts


@pytest.mark.parametrize("kind", TOUCHING)
def test_a_wrong_sound_is_that_of_the_other_video_and_never_in_step(kind: str) -> None:
    checked = 0
    for index in range(2):
        plain, wrong = (make(config(kind, *names), index) for names in ((), ("wrong_sound",)))
        truth = wrong.truth
        np.testing.assert_array_equal(plain.frames, wrong.frames)
        if truth.sound_of is None:
            assert truth == dataclasses.replace(plain.truth, config_digest=truth.config_digest)
            continue
        other = make(config(kind), truth.sound_of)
        np.testing.assert_array_equal(wrong.samples, other.samples)
        assert (truth.sound_lag_ms, truth.evident()) == (None, [])
        times = [impulse.t for impulse in truth.other_impulses]
        assert times == [contact.t for contact in other.truth.contacts]
        seen = [contact.t for contact in truth.contacts]
        assert min(abs(t - one) for t in times for one in seen) >= 0.05
        checked += 1
    assert checked


@pytest.mark.parametrize("kind", AUDIBLE)
def test_distractors_are_added_and_keep_away_from_contacts(kind: str) -> None:
    plain, made = (make(config(kind, *names), 0) for names in ((), ("distractors", "music")))
    assert made.truth.contacts == plain.truth.contacts
    added = [impulse.t for impulse in made.truth.other_impulses]
    assert added
    contacts = [contact.t for contact in made.truth.contacts]
    assert all(abs(t - one) >= 0.1 for t in added for one in contacts)
    assert np.diff(added).min() >= 0.1
    # Up to the first of them and beside the chord the sound is the scene's own.
    only = make(config(kind, "distractors"), 0)
    before = round(min(impulse.t for impulse in only.truth.other_impulses) * SAMPLE_RATE)
    own, mixed = plain.samples[:, :before], only.samples[:, :before]
    scale = float((own * mixed).sum() / np.square(own).sum())
    np.testing.assert_allclose(mixed, scale * own, atol=1e-6)
    assert np.abs(only.samples).max() < 1


@pytest.mark.parametrize("name", SOUNDS)
def test_a_distractor_begins_at_once_and_rises_once(name: ImpulseSound) -> None:
    for seed in range(10):
        wave = SOUNDS[name](np.random.default_rng(seed))
        padded = np.concatenate([np.zeros(4410), wave, np.zeros(4410)])
        (at,) = sudden(np.stack([padded, padded]).astype(np.float32))
        assert at == pytest.approx(0.1, abs=0.006)


def test_a_video_goes_without_what_it_cannot_have() -> None:
    silent, slide = (make(config(kind, *NAMES), 0).truth for kind in ("silent", "slide"))
    assert silent.variants == ["occlusion", "shake", "drift", "variable_rate"]
    assert slide.variants == ["shake", "drift", "distractors", "music", "variable_rate"]
    assert slide.motion == "static"
    assert not make(config("bounce", *NAMES), 0).truth.evident()


def test_one_share_changes_only_the_videos_that_it_gives_a_variant() -> None:
    few = dataclasses.replace(PLAIN, num_videos=200, variants=MIXED)
    more = dataclasses.replace(few, variants=dataclasses.replace(MIXED, lag=0.6))
    gained = 0
    for index in range(few.num_videos):
        had, has = few.chosen(index).names, more.chosen(index).names
        assert set(has) - set(had) <= {"lag"}
        assert (few.digest(index) == more.digest(index)) == (had == has)
        gained += had != has
    assert 20 < gained < 120
    for name, share in MIXED:
        given = sum(name in few.chosen(index).names for index in range(200)) / 200
        assert share / 3 < given < 1.4 * share


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    shares = VariantShares(**dict.fromkeys(set(NAMES) - {"wrong_sound"}, 1.0))
    small = WorldConfig(2, ("bounce", "collide"), height=64, width=108, seconds=2, variants=shares)
    once, again = (generate(tmp_path / name, small) for name in ("a", "b"))
    for one, other in zip(once, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
        assert truth_path(one).read_bytes() == truth_path(other).read_bytes()
    assert read_truth(truth_path(once[0])) == make(small, 0).truth
    reseeded = generate(tmp_path / "c", dataclasses.replace(small, seed=1))
    assert reseeded[0].read_bytes() != once[0].read_bytes()


def test_a_share_is_from_none_to_all() -> None:
    with pytest.raises(ValueError, match="lag is a share"):
        VariantShares(lag=1.5)
