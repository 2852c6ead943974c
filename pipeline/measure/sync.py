"""How far sound and picture of a source are apart, read from what is seen and heard alone.

Whatever the container says, things that strike are heard when they strike. So the changes of
velocity in the picture are read at every onset of the sound, for each delay of the sound within a
second, and the delay at which they are largest is the lag. A source has one lag: all its shots are
taken together. Nothing else about the file is trusted, so a sound that was recorded or muxed late
shows here and not in `media.av_lag_ms`.
"""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from avdata.pipeline.record import Sync

REACH_SECONDS = 1.0
STEP_SECONDS = 0.005
WIDTH_SECONDS = 0.04
"""A frame, about: the picture does not tell more closely when something struck."""
MIN_ONSETS = 4
AROUND_SECONDS = 0.15
"""Delays so near to the best one are the same peak, not its rivals."""


def sync(
    onsets_s: list[float], happened: Float[ndarray, " n"], jumps: Float[ndarray, " n"]
) -> Sync | None:
    """From the onsets and the sizes of the changes of velocity at their times; None where there are
    too few of either to tell."""
    if len(onsets_s) < MIN_ONSETS or len(happened) < 2 or not jumps.any():
        return None
    count = round(REACH_SECONDS / STEP_SECONDS)
    delays = np.arange(-count, count + 1) * STEP_SECONDS
    score = _score(np.array(onsets_s), happened, jumps, delays)
    best = int(score.argmax())
    rivals = score[np.abs(delays - delays[best]) > AROUND_SECONDS]
    margin = (score[best] - rivals.max()) / (score[best] - np.median(rivals) + 1e-9)
    near = slice(max(0, best - 8), best + 9)
    weight = np.maximum(score[near] - np.median(rivals), 0) ** 2
    lag = float((delays[near] * weight).sum() / (weight.sum() + 1e-12))
    return Sync(lag_ms=1000 * lag, confidence=float(np.clip(margin, 0, 1)))


def _score(
    onsets_s: Float[ndarray, " k"],
    happened: Float[ndarray, " n"],
    jumps: Float[ndarray, " n"],
    delays: Float[ndarray, " d"],
) -> Float[ndarray, " d"]:
    """Mean change of velocity at the onsets when the sound is `delays` late; no single one of them
    counts for more than a few."""
    typical = np.median(jumps[jumps > 0])
    size = np.log1p(np.minimum(jumps, 8 * typical) / typical)
    size = size - size.mean()
    grid = np.arange(happened[0] - REACH_SECONDS, happened[-1] + REACH_SECONDS, STEP_SECONDS)
    train = np.zeros(len(grid))
    # Each change stands for the frame it was seen in.
    places = np.round((happened - grid[0]) / STEP_SECONDS).astype(int)
    np.add.at(train, np.clip(places, 0, len(grid) - 1), size)
    half = round(WIDTH_SECONDS / STEP_SECONDS)
    bump = np.hanning(2 * half + 1)
    seen = np.convolve(train, bump, mode="same")
    return np.array(
        [np.interp(onsets_s - delay, grid, seen, left=0, right=0).mean() for delay in delays]
    )
