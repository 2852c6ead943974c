"""The contacts of a source and the lag of its sound, from onsets and motion."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from avdata.pipeline.measure.contact import contacts, jumps
from avdata.pipeline.measure.motion import FlowMeter, FrameMotion
from avdata.pipeline.measure.strikes import Strike
from avdata.pipeline.measure.sync import sync
from avdata.pipeline.record import ContactEvent, Sync

TRUSTED = 0.5
"""Confidence from which contacts are looked for at the source's lag instead of at none."""


def heard_and_seen(
    spans: list[tuple[float, float]],
    onsets_s: list[float],
    struck: list[Strike],
    meter: FlowMeter,
) -> tuple[list[ContactEvent], Sync | None]:
    """Of the onsets of a sound, and of the strikes among them. Events in order of time, on the
    source's clock; nothing of one shot bears on another but the lag, which is the whole source's.
    """
    times = np.array(meter.times)
    shots = [(span, *_within(span, times, meter.motions)) for span in spans]
    moved = [(at, frames) for _, at, frames in shots if len(frames) >= 2]
    apart = None
    if moved:
        happened = np.concatenate([np.r_[at[:1], at[:-1]] for at, _ in moved])
        apart = sync(
            onsets_s, happened, np.concatenate([jumps(frames).size for _, frames in moved])
        )
    trusted = apart is not None and apart.confidence >= TRUSTED
    lag = apart.lag_ms / 1000 if apart is not None and trusted else None
    found = []
    for (low, high), at, frames in shots:
        found += contacts([one for one in struck if low <= one.t < high], at, frames, lag)
    return found, apart


def _within(
    span: tuple[float, float], times: Float[ndarray, " n"], motions: list[FrameMotion]
) -> tuple[Float[ndarray, " k"], list[FrameMotion]]:
    inside = np.flatnonzero((times >= span[0] - 1e-6) & (times < span[1] - 1e-6))
    return times[inside], [motions[k] for k in inside]
