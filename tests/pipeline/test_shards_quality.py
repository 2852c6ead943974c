import dataclasses
import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from avdata.encoders.choice import Encoders, EncodersConfig
from avdata.encoders.encoder import AudioEncoder, VideoEncoder
from avdata.encoders.spec import AudioSpec, VideoSpec
from avdata.pipeline.media.clip import ClipMedia
from avdata.pipeline.shards.quality import (
    RoundTrip,
    chosen,
    picture_shift,
    round_trip,
    sound_shift,
    with_round_trip,
)
from avdata.pipeline.shards.sample import EncodedSample
from tests.pipeline.media import RATE, clicks, plain, silence, textured, tone, with_square

FRAMES, FPS = 33, 16


@dataclasses.dataclass
class LateVideo:
    """The default encoder, but what it decodes to is some frames late."""

    inner: VideoEncoder
    frames: int

    @property
    def spec(self) -> VideoSpec:
        return self.inner.spec

    def encode(self, frames: UInt8[Tensor, "b n h w 3"]) -> Float[Tensor, "b c t lh lw"]:
        return self.inner.encode(frames)

    def decode(self, latents: Float[Tensor, "b c t lh lw"]) -> UInt8[Tensor, "b n h w 3"]:
        return self.inner.decode(latents).roll(self.frames, dims=1)


@dataclasses.dataclass
class ChangedAudio:
    """The default encoder, but what it decodes to is changed."""

    inner: AudioEncoder
    change: Callable[[Tensor], Tensor]

    @property
    def spec(self) -> AudioSpec:
        return self.inner.spec

    def encode(self, samples: Float[Tensor, "b 2 m"]) -> Float[Tensor, "b c l"]:
        return self.inner.encode(samples)

    def decode(self, latents: Float[Tensor, "b c l"]) -> Float[Tensor, "b 2 m"]:
        return self.change(self.inner.decode(latents))


@pytest.fixture(scope="module")
def encoders() -> Encoders:
    return EncodersConfig().open(torch.device("cpu"))


def moving() -> UInt8[ndarray, "n h w 3"]:
    background = textured(3, 96, 160)
    return np.stack(
        [with_square(background, 10 + 3 * k, 30 + 20 * np.sin(k / 3), 24) for k in range(FRAMES)]
    )


def struck(at_s: tuple[float, ...] = (0.4, 1.1, 1.6)) -> Float[ndarray, "2 m"]:
    """Low thumps, which the default encoder keeps."""
    t = np.arange(2 * RATE) / RATE
    sound = sum(
        0.5 * np.sin(2 * np.pi * 180 * (t - at)) * np.exp(-(t - at) * 25) * (t >= at) for at in at_s
    )
    return np.stack([sound, sound]).astype(np.float32)


def measured(encoders: Encoders, media: ClipMedia) -> RoundTrip:
    video = encoders.video.encode(torch.from_numpy(media.frames)[None])[0].numpy()
    audio = encoders.audio.encode(torch.from_numpy(media.samples)[None])[0].numpy()
    return round_trip(encoders, media, video, audio)


def test_a_clip_that_comes_back_whole_has_no_lag(encoders: Encoders) -> None:
    found = measured(encoders, ClipMedia(moving(), struck()))
    assert found.psnr_db > 20
    assert found.snr_db is not None
    assert found.snr_db > 10
    assert found.lag_ms is not None
    assert abs(found.lag_ms) < 3


@pytest.mark.parametrize("late_ms", [-60, 25, 90])
def test_a_sound_that_comes_back_late_is_found(encoders: Encoders, late_ms: int) -> None:
    shift = round(late_ms * RATE / 1000)
    late = ChangedAudio(encoders.audio, lambda sound: sound.roll(shift, dims=-1))
    found = measured(dataclasses.replace(encoders, audio=late), ClipMedia(moving(), struck()))
    assert found.lag_ms == pytest.approx(late_ms, abs=4)
    assert found.snr_db is not None
    assert found.snr_db < 3


@pytest.mark.parametrize("frames", [-1, 2])
def test_a_picture_that_comes_back_late_is_a_sound_that_leads(
    encoders: Encoders, frames: int
) -> None:
    late = LateVideo(encoders.video, frames)
    found = measured(dataclasses.replace(encoders, video=late), ClipMedia(moving(), struck()))
    assert found.lag_ms == pytest.approx(-1000 * frames / FPS, abs=8)


def test_latents_scaled_twice_show_in_the_figures(encoders: Encoders) -> None:
    media = ClipMedia(moving(), struck())
    video = encoders.video.encode(torch.from_numpy(media.frames)[None])[0].numpy()
    audio = encoders.audio.encode(torch.from_numpy(media.samples)[None])[0].numpy()
    whole, scaled = (round_trip(encoders, media, k * video, k * audio) for k in (1, 2))
    assert scaled.psnr_db < whole.psnr_db - 5
    assert scaled.snr_db is not None
    assert whole.snr_db is not None
    assert scaled.snr_db < whole.snr_db - 5


def test_what_cannot_be_measured_is_none(encoders: Encoders) -> None:
    still = np.stack([textured(3, 96, 160)] * FRAMES)
    assert measured(encoders, ClipMedia(still, struck())).lag_ms is None
    steady = measured(encoders, ClipMedia(moving(), tone(200, 2.0)))
    assert steady.lag_ms is None
    assert steady.snr_db is not None
    silent = measured(encoders, ClipMedia(moving(), silence(2.0)))
    assert (silent.snr_db, silent.lag_ms) == (None, None)
    assert measured(encoders, ClipMedia(np.stack([plain(0, 96, 160)] * FRAMES), struck())).psnr_db


def test_figures_are_numbers_in_json_and_the_same_again(encoders: Encoders) -> None:
    media = ClipMedia(moving(), struck())
    one, other = measured(encoders, media), measured(encoders, media)
    assert one == other
    assert json.loads(json.dumps(dataclasses.asdict(one))) == dataclasses.asdict(one)
    assert json.loads(json.dumps(dataclasses.asdict(one), allow_nan=False))


def test_shifts_are_found_to_a_fraction() -> None:
    frames, sound = moving(), struck()
    assert picture_shift(frames, frames) == pytest.approx(0, abs=0.01)
    assert picture_shift(frames[:-2], frames[2:]) == pytest.approx(-2, abs=0.1)
    assert sound_shift(sound, sound, RATE) == pytest.approx(0, abs=1e-4)
    assert sound_shift(sound, np.roll(sound, 441), RATE) == pytest.approx(0.01, abs=1e-3)
    hits = clicks([0.3, 1.2], 2.0)
    assert sound_shift(hits, np.roll(hits, -882), RATE) == pytest.approx(-0.02, abs=1e-3)
    assert sound_shift(hits, silence(2.0), RATE) is None
    assert sound_shift(hits, clicks([0.1, 0.4, 0.5, 0.8, 1.5], 2.0), RATE) is None


def test_the_choice_depends_on_the_keys_alone() -> None:
    keys = [f"{k:032x}" for k in range(50)]
    assert chosen(keys) == chosen(reversed(keys))
    assert len(chosen(keys)) == 2
    assert chosen(keys, count=5) > chosen(keys)
    assert len({chosen(keys, seed=seed) for seed in range(10)}) > 5
    assert chosen(keys[:1]) == {keys[0]}


def test_the_figures_go_among_the_facts(encoders: Encoders) -> None:
    media = ClipMedia(moving(), struck())
    video = encoders.video.encode(torch.from_numpy(media.frames)[None])[0].numpy()
    audio = encoders.audio.encode(torch.from_numpy(media.samples)[None])[0].numpy()
    text = np.zeros((1, 4), np.float32)
    sample = EncodedSample("k", "s", [], video, audio, text, text, {"clip_id": "k"})
    found = with_round_trip(encoders, media, sample)
    wanted = dataclasses.asdict(round_trip(encoders, media, video, audio))
    assert found.meta == {"clip_id": "k", "round_trip": wanted}
    assert sample.meta == {"clip_id": "k"}
