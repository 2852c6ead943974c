"""The contacts of a source and the lag of its sound, from onsets and motion."""

from bisect import bisect_left

import numpy as np

from avdata.pipeline.measure.contact import contacts, jumps
from avdata.pipeline.measure.motion import FlowMeter
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
    edges = [np.searchsorted(times, np.array(span) - 1e-6).tolist() for span in spans]
    shots = [(times[low:high], meter.motions.between(low, high)) for low, high in edges]
    moved = [(at, frames) for at, frames in shots if len(frames) >= 2]
    apart = None
    if moved:
        happened = np.concatenate([np.r_[at[:1], at[:-1]] for at, _ in moved])
        apart = sync(
            onsets_s, happened, np.concatenate([jumps(frames).size for _, frames in moved])
        )
    trusted = apart is not None and apart.confidence >= TRUSTED
    lag = apart.lag_ms / 1000 if apart is not None and trusted else None
    found = []
    for span, (at, frames) in zip(spans, shots, strict=True):
        low, high = (bisect_left(struck, edge, key=lambda one: one.t) for edge in span)
        found += contacts(struck[low:high], at, frames, lag)
    return found, apart
