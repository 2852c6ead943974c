"""Whether the picture moves in step with the onsets of its sound, and at which of them.

A hand that strikes does the same thing at every stroke: it comes, and it turns back or stops. One
stroke alone may not stand out of the motion around it, but the mean over all strokes does. So the
velocities around every onset are averaged, and the energy of that mean is compared with what the
same number of onsets gives when the pauses between them are shuffled: the same rhythm, at the
wrong times. Speech, music beside the picture, and impulses that nothing visible makes do not pass.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray

from avdata.pipeline.measure.frame_motion import FrameMotion, Frames

REACH_SECONDS = 0.15
"""Before and after an onset: the stroke itself, and what picture and sound may be apart."""
TREND_SECONDS = 0.6
"""Slower motion than this is no stroke and is taken out."""
NUM_SHUFFLES = 99
MIN_ONSETS = 5
"""Fewer have too few shuffles to be compared with."""
STRETCH_SECONDS = 60.0
"""Longer shots are judged piece by piece: who strikes may change, and memory must not grow."""


@dataclass(frozen=True, slots=True)
class Lockstep:
    """Of one onset."""

    z: float
    """By how many standard deviations the true onsets of its stretch beat the shuffled ones."""
    agreement: float
    """Cosine, -1 to 1, between the motion around this onset and the mean of the others'."""


def lockstep(onsets_s: list[float], times: Float[ndarray, " n"], frames: Frames) -> list[Lockstep]:
    """For each onset of one shot; zero where there are too few onsets to tell."""
    found = []
    for start in np.arange(times[0], times[-1] + 1e-9, STRETCH_SECONDS):
        end = start + STRETCH_SECONDS
        low, high = np.searchsorted(times, [start, end]).tolist()
        heard = [t for t in onsets_s if start <= t < end and t <= times[-1]]
        if len(heard) < MIN_ONSETS or high - low < 3 * len(heard):
            found += [Lockstep(0.0, 0.0)] * len(heard)
            continue
        found += _stretch(np.array(heard), times[low:high], frames[low:high])
    before = sum(t < times[0] for t in onsets_s)
    after = len(onsets_s) - before - len(found)
    return [Lockstep(0.0, 0.0)] * before + found + [Lockstep(0.0, 0.0)] * after


def _stretch(
    onsets_s: Float[ndarray, " k"], times: Float[ndarray, " n"], frames: list[FrameMotion]
) -> list[Lockstep]:
    period = float(np.median(np.diff(times)))
    reach = max(2, round(REACH_SECONDS / period))
    strokes = _strokes(frames, max(3, round(TREND_SECONDS / period) | 1))
    trains = np.stack([_train(one, times, period) for one in _shuffled(onsets_s, times)])
    energy = sum(
        np.square(trains @ np.roll(strokes, -lag, axis=0) / len(times)).sum(axis=1)
        for lag in range(-reach, reach + 1)
    )
    assert isinstance(energy, np.ndarray)
    z = float((energy[0] - energy[1:].mean()) / (energy[1:].std() + 1e-12))
    nearest = np.clip(np.searchsorted(times, onsets_s - period / 2), 0, len(times) - 1)
    padded = np.pad(strokes, ((reach, reach), (0, 0)))
    around = np.stack([padded[k : k + 2 * reach + 1].ravel() for k in nearest])
    others = around.sum(axis=0) - around
    cosine = (others * around).sum(axis=1) / (
        np.linalg.norm(others, axis=1) * np.linalg.norm(around, axis=1) + 1e-9
    )
    return [Lockstep(z, float(one)) for one in cosine]


def _strokes(frames: list[FrameMotion], trend: int) -> Float32[ndarray, "n values"]:
    """Momentum of every cell, compressed and without slow motion, no frame larger than a few: one
    burst of motion must not decide alone.
    """
    momentum = np.stack([frame.momentum for frame in frames])
    flat = momentum.reshape(len(frames), -1).astype(np.float32)
    flat = np.sign(flat) * np.sqrt(np.abs(flat))
    flat = flat - cv2.blur(flat, (1, trend))
    size = np.linalg.norm(flat, axis=1, keepdims=True)
    strokes: Float32[ndarray, "n values"] = flat / np.maximum(size, 0.3 * size.mean() + 1e-9)
    return strokes


def _shuffled(
    onsets_s: Float[ndarray, " k"], times: Float[ndarray, " n"]
) -> list[Float[ndarray, " k"]]:
    """The onsets themselves, then with their pauses in other orders; always the same ones."""
    random = np.random.Generator(np.random.Philox(0))
    pauses = np.diff(onsets_s, prepend=times[0], append=times[-1])
    shuffled = [times[0] + np.cumsum(random.permutation(pauses))[:-1] for _ in range(NUM_SHUFFLES)]
    return [onsets_s, *shuffled]


def _train(
    onsets_s: Float[ndarray, " k"], times: Float[ndarray, " n"], period: float
) -> Float32[ndarray, " n"]:
    """A bump of about a frame at each onset, zero mean, unit variance."""
    bumps = np.exp(-0.5 * np.square((times[:, None] - onsets_s) / (0.6 * period))).sum(axis=1)
    train: Float32[ndarray, " n"] = ((bumps - bumps.mean()) / (bumps.std() + 1e-9)).astype(
        np.float32
    )
    return train
