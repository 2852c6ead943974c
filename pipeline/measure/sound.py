"""Onsets of a mono sound.

An onset is a sudden rise of energy over several bands at once (spectral flux on a 5 ms hop),
timed at the foot of the rise: where a hit begins, not where it is loudest.
"""

import numpy as np
from jaxtyping import Float32
from numpy import ndarray
from scipy.fft import rfft
from scipy.signal import find_peaks

from avdata.pipeline.media.sound import Samples

HOP_SECONDS = 0.005
NUM_BANDS = 32
LOWEST_HZ, HIGHEST_HZ = 60.0, 16_000.0
MIN_RISE_DB = 4.0
"""Mean rise over the bands that counts as an onset at all."""
MIN_GAP_SECONDS = 0.06
HOPS_AT_ONCE = 2000
"""Ten seconds: memory does not grow with the source."""


def onsets(sound: Samples, rate: int) -> list[float]:
    """Times of the onsets, in seconds from the first sample."""
    hop = round(HOP_SECONDS * rate)
    flux = _flux(sound, rate, hop)
    if len(flux) == 0:
        return []
    # A steady noise has its own flux; an onset stands well out of its neighbourhood.
    floor = _running_median(flux, round(0.5 / HOP_SECONDS))
    distance = max(1, round(MIN_GAP_SECONDS / HOP_SECONDS))
    peaks, _ = find_peaks(flux - 3.0 * floor, height=MIN_RISE_DB, distance=distance)
    return [_foot(sound, rate, (int(peak) + 3) * hop) for peak in peaks]


def _flux(sound: Samples, rate: int, hop: int) -> Float32[ndarray, " n"]:
    """Mean rise over the bands, a value a hop, from the fourth hop on."""
    size = 4 * hop
    if len(sound) < size:
        return np.zeros(0, np.float32)
    count = len(sound) // hop + 1
    levels, found = np.zeros((0, NUM_BANDS), np.float32), []
    for first in range(0, count, HOPS_AT_ONCE):
        last = min(first + HOPS_AT_ONCE, count) - 1
        low, high = first * hop - size // 2, last * hop + size // 2
        piece = sound[max(low, 0) : high]
        piece = np.pad(piece, (max(-low, 0), high - max(low, 0) - len(piece)))
        levels = np.concatenate([levels[-3:], _band_levels(piece, rate, hop)])
        # Against the loudest of the three hops before, so a ripple of a held tone is no rise.
        held = np.stack([levels[2:-1], levels[1:-2], levels[:-3]]).max(axis=0)
        found.append(np.maximum(levels[3:] - held, 0.0).mean(axis=1))
    return np.concatenate(found)


def _band_levels(
    sound: Float32[ndarray, " m"], rate: int, hop: int
) -> Float32[ndarray, "hops bands"]:
    """dB per band and hop, floored 70 dB under full scale so that faint noise has no onsets."""
    size = 4 * hop
    frames = np.lib.stride_tricks.sliding_window_view(sound, size)[::hop]
    top = min(HIGHEST_HZ, 0.45 * rate)
    edges = np.geomspace(LOWEST_HZ, top, NUM_BANDS + 1) * size / rate
    starts = np.minimum(np.round(edges[:-1]).astype(int), size // 2)
    block = frames * np.hanning(size).astype(np.float32)
    power = np.square(np.abs(rfft(block, axis=1))) / size**2
    bands = np.add.reduceat(power, starts, axis=1)
    return np.asarray(10 * np.log10(bands + 1e-7), np.float32)


def _running_median(values: Float32[ndarray, " n"], width: int) -> Float32[ndarray, " n"]:
    width = min(width | 1, len(values) | 1)
    padded = np.pad(values, width // 2, mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, width)
    median = np.zeros(len(values), np.float32)
    for first in range(0, len(values), HOPS_AT_ONCE):
        some = slice(first, min(first + HOPS_AT_ONCE, len(values)))
        median[some] = np.median(around[some], axis=1)
    return median


def _foot(sound: Samples, rate: int, near: int) -> float:
    """Where, within 25 ms around sample `near`, the envelope first passes a fifth of its top."""
    low = max(0, near - round(0.015 * rate))
    piece = np.abs(sound[low : near + round(0.01 * rate)])
    if len(piece) == 0:
        return near / rate
    before = float(piece[: max(1, round(0.002 * rate))].max())
    top = float(piece.max())
    passed = np.flatnonzero(piece >= before + 0.2 * (top - before))
    return (low + int(passed[0])) / rate
