"""What a sample loses on its way into a shard, measured by decoding some of them back.

A frame dropped, a sound late by a hop, a latent scaled twice show in no shape and in no digest;
they show here.
"""

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import xxhash
from jaxtyping import Float, UInt8
from numpy import ndarray

from avdata.encoders.choice import Encoders
from avdata.pipeline.measure.labels import SILENT_DBFS
from avdata.pipeline.media.clip import ClipMedia
from avdata.pipeline.media.sound import dbfs
from avdata.pipeline.shards.sample import EncodedSample

BEST_DB = 100.0
"""Given for an error of nothing, so that a figure is always a number."""
REACH_FRAMES = 4
REACH_S = 0.25
"""How far to either side picture and sound are looked for."""
BIN_S = 0.001
SMOOTH, SLOW = 20, 251
"""Bins over which the sound's power is averaged, longer than a period of what is heard, and bins
over which its level is averaged for what is slow.
"""
STEADY = 0.05
"""A level that varies by less than this share of its mean shows no movement in time."""
ALIKE = 0.6
"""Correlation of two levels below which one is not the other, moved."""
BLOCK = 8
STILL = 0.1
"""Mean squared change a frame of 8-bit luma, over blocks of 8 x 8, below which nothing moves."""


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """One sample decoded back, against what was encoded."""

    psnr_db: float
    """Over all 8-bit values of all frames; at most 100."""
    snr_db: float | None
    """Over both channels, as far as there are latents; at most 100. None for a silent sound."""
    lag_ms: float | None
    """How much the sound came to lag the picture; None when nothing moves, when the sound is silent
    or steady, or when what came back is too unlike it to be placed.
    """


def chosen(keys: Iterable[str], count: int = 2, seed: int = 0) -> frozenset[str]:
    """Which samples of a shard to decode back: a draw that depends on nothing else."""
    drawn = sorted(keys, key=lambda key: (xxhash.xxh3_64_intdigest(key.encode(), seed=seed), key))
    return frozenset(drawn[:count])


def with_round_trip(encoders: Encoders, media: ClipMedia, sample: EncodedSample) -> EncodedSample:
    """The sample with its `RoundTrip` among its facts, from where it goes into the index."""
    found = dataclasses.asdict(round_trip(encoders, media, sample.video, sample.audio))
    return dataclasses.replace(sample, meta={**sample.meta, "round_trip": found})


def round_trip(
    encoders: Encoders,
    media: ClipMedia,
    video: Float[ndarray, "c t h w"],
    audio: Float[ndarray, "c l"],
) -> RoundTrip:
    """Decodes latents as a shard holds them (float16) and compares them with what was encoded.

    Figures are rounded to thousandths.
    """
    with torch.inference_mode():
        frames = encoders.video.decode(_stored(video))[0].cpu().numpy()
        samples = encoders.audio.decode(_stored(audio))[0].cpu().numpy()
    rate = encoders.audio.spec.sample_rate
    seconds_a_frame = media.samples.shape[1] / rate / max(1, len(media.frames) - 1)
    heard = media.samples[:, : samples.shape[1]]
    power = float(np.square(heard, dtype=np.float64).mean())
    silent = dbfs(math.sqrt(power)) < SILENT_DBFS
    noise = float(np.square(heard - samples, dtype=np.float64).mean())
    moved, later = picture_shift(media.frames, frames), sound_shift(heard, samples, rate)
    lag_s = None if silent or moved is None or later is None else later - moved * seconds_a_frame
    error = float(np.square(frames.astype(np.float32) - media.frames).mean(dtype=np.float64))
    return RoundTrip(
        psnr_db=_decibels(255.0**2, error),
        snr_db=None if silent else _decibels(power, noise),
        lag_ms=None if lag_s is None else round(1000 * lag_s, 3),
    )


def picture_shift(
    before: UInt8[ndarray, "n h w 3"], after: UInt8[ndarray, "n h w 3"]
) -> float | None:
    """By how many frames `after` is later, to a fraction.

    None when nothing moves, or when they are most alike at the end of reach.
    """
    one, other = _small(before), _small(after)
    if len(one) < 3 or np.square(np.diff(one, axis=0)).mean() < STILL:
        return None
    reach = min(REACH_FRAMES, len(one) - 2)
    likeness = [
        -np.square(one[max(0, -by) : len(one) - max(0, by)] - other[max(0, by) :][: len(one) + by])
        .mean()
        .item()
        for by in range(-reach, reach + 1)
    ]
    at = _peak(np.array(likeness))
    return None if at is None else at - reach


def sound_shift(
    before: Float[ndarray, "2 m"], after: Float[ndarray, "2 m"], rate: int
) -> float | None:
    """By how many seconds `after` is later, from the course of their levels.

    None when the sound is steady or changes slowly, or when they are alike nowhere within reach.
    """
    size, reach = round(rate * BIN_S), round(REACH_S / BIN_S)
    if before.shape[1] < 4 * reach * size:
        return None
    (one, mean), (other, _) = _course(before, size), _course(after, size)
    if one.std() <= STEADY * mean or other.std() == 0:
        return None
    middle = len(one) - 1
    likeness = np.correlate(other, one, mode="full")[middle - reach : middle + reach + 1]
    if likeness.max() < ALIKE * np.linalg.norm(one) * np.linalg.norm(other):
        return None
    at = _peak(likeness)
    return None if at is None else (at - reach) * size / rate


def _peak(values: Float[ndarray, " k"]) -> float | None:
    """Where the largest value lies, between neighbours by the parabola through the three.

    None at an end: it rises beyond.
    """
    at = int(values.argmax())
    if at in (0, len(values) - 1):
        return None
    left, top, right = (float(value) for value in values[at - 1 : at + 2])
    bend = left - 2 * top + right
    return at + (0.5 * (left - right) / bend if bend < 0 else 0.0)


def _small(frames: UInt8[ndarray, "n h w 3"]) -> Float[ndarray, "n bh bw"]:
    """Luma of blocks."""
    count, height, width = len(frames), frames.shape[1] // BLOCK, frames.shape[2] // BLOCK
    whole = frames[:, : height * BLOCK, : width * BLOCK]
    blocks = whole.reshape(count, height, BLOCK, width, BLOCK, 3)
    small: Float[ndarray, "n bh bw"] = blocks.mean(axis=(2, 4, 5), dtype=np.float32)
    return small


def _course(samples: Float[ndarray, "2 m"], size: int) -> tuple[Float[ndarray, " k"], float]:
    """How the level departs from its slow course, by bins of so many samples; and its mean.

    What changes slowly is alike wherever it is moved to.
    """
    whole = samples[:, : samples.shape[1] // size * size].astype(np.float64)
    power = np.square(whole.reshape(2, -1, size)).mean(axis=(0, 2))
    smooth = np.convolve(power, np.full(SMOOTH, 1 / SMOOTH), mode="valid")
    level = np.sqrt(smooth.clip(0))
    slow = np.convolve(level, np.full(SLOW, 1 / SLOW), mode="valid")
    return level[SLOW // 2 : len(level) - SLOW // 2] - slow, float(level.mean())


def _stored(latents: Float[ndarray, "..."]) -> torch.Tensor:
    return torch.from_numpy(latents.astype(np.float16).astype(np.float32))[None]


def _decibels(signal: float, error: float) -> float:
    if error <= 0 or signal <= 0:
        return BEST_DB if error <= 0 else -BEST_DB
    return round(min(BEST_DB, 10 * math.log10(signal / error)), 3)
