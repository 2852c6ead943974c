"""Contacts: sudden changes of velocity in the picture that come with an onset in the sound.

A thing that hits another changes its velocity from one frame to the next; a thing that is merely
carried through the grid, or blurs, or appears, does not. Neither half is enough alone: barks and
shots have onsets, a shaking hand has jumps. What counts is both within `MATCH_SECONDS`.
"""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from avdata.pipeline.measure.motion import FrameMotion
from avdata.pipeline.record import ContactEvent

MATCH_SECONDS = 0.1
"""Web video has picture and sound apart by up to this."""
MIN_JUMP = 0.35
"""Change of velocity, in heights per second, of a cell-sized thing that counts as an impact."""
MIN_CELL_SHARE = 0.08
"""Share of a cell that must move for its velocity to be worth reading."""
STAND_OUT = 2.5
"""How far a jump must stand over the median jump of the second around it."""


def jumps(frames: list[FrameMotion]) -> Float[ndarray, " n"]:
    """For each frame, the largest change of velocity of any cell since the frame before it.

    The flow of frame k is the velocity between k-1 and k, so a change seen at k happened about
    frame k-1. Cells are weighed by the root of the share that moves in both frames: a thing that
    enters or leaves a cell is no change of velocity.
    """
    if len(frames) < 3:
        return np.zeros(len(frames))
    velocity = np.stack([frame.velocity for frame in frames])
    moving = np.stack([frame.moving for frame in frames])
    change = np.linalg.norm(velocity[1:] - velocity[:-1], axis=3)
    both = np.maximum(moving[1:], moving[:-1])
    sized = np.where(both >= MIN_CELL_SHARE, change * np.sqrt(both), 0.0)
    return np.concatenate([[0.0], sized.max(axis=(1, 2))])


def match(
    onsets_s: list[float], times: Float[ndarray, " n"], jump: Float[ndarray, " n"]
) -> list[ContactEvent]:
    """The onsets that have an impact in the picture beside them, in order of time."""
    events: list[ContactEvent] = []
    taken: set[int] = set()
    for onset in onsets_s:
        near = np.flatnonzero(np.abs(times - onset) <= MATCH_SECONDS + 1e-9)
        near = near[[int(k) not in taken for k in near]] if len(near) else near
        if len(near) == 0:
            continue
        best = int(near[np.argmax(jump[near])])
        around = jump[np.abs(times - onset) <= 1.0]
        usual = float(np.median(around)) + 1e-3
        if jump[best] < MIN_JUMP or jump[best] < STAND_OUT * usual:
            continue
        taken.add(best)
        events.append(_event(onset, _impact_time(times, best), float(jump[best]), usual))
    return events


def _impact_time(times: Float[ndarray, " n"], frame: int) -> float:
    """The change shows between the flows of frame-1 and frame: it happened about frame-1."""
    return float(times[max(frame - 1, 0)])


def _event(t_audio: float, t_video: float, jump: float, usual: float) -> ContactEvent:
    ratio = jump / (STAND_OUT * usual)
    return ContactEvent(
        t=t_audio,
        t_audio=t_audio,
        t_video=t_video,
        lag_ms=1000 * (t_audio - t_video),
        strength=jump,
        confidence=float(1 - np.exp(-ratio)),
    )
