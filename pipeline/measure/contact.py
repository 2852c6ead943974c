"""Contacts: a thing in the picture changes its velocity when the sound of a strike begins.

Neither half is enough alone: footsteps beside the picture sound struck, a shaking hand changes its
velocity. A strike is a contact when, within `MATCH_SECONDS`, a velocity changes by more than is
usual in the second around it, what changes was moving before (a thing that only starts to move with
the sound recoils, or is carried off), and either

- the change is large, and larger than chance would have it (`chance`); or
- all strikes of the shot are in lock-step with the picture (`lockstep`), this one agrees, and most
  that do were moving before. Then a loud one need not stand out of the motion around it.

What is much fainter than the loud strikes of its shot is none: the echo, the rattle after it.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Int64
from numpy import ndarray

from avdata.pipeline.measure.chance import believed, p_values, within
from avdata.pipeline.measure.frame_motion import GRID_COLUMNS, GRID_ROWS, FrameMotion, Frames
from avdata.pipeline.measure.lockstep import Lockstep, lockstep
from avdata.pipeline.measure.strikes import Strike
from avdata.pipeline.record import ContactEvent

MATCH_SECONDS = 0.1
"""Web video has picture and sound apart by up to this."""
KNOWN_SECONDS = 0.06
"""The same, where the lag of the sound is known: a frame and a half at 24 fps."""
MIN_JUMP = 0.45
"""Change of velocity, in heights per second, of a cell-sized thing that counts as an impact."""
MIN_CELL_SHARE = 0.08
"""Share of a cell that must move for its velocity to be worth reading."""
STAND_OUT = 1.1
"""How far a jump must stand over the median jump of the second around it."""
LOUD_DB, FAINT_DB = 6.0, 12.0
"""Under the loudest quarter of the shot's strikes: half, and a quarter, of their amplitude."""
DARK_LUMA = 16.0
"""Mean luma, of 255, under which lights alone are seen; what they do is no motion of things."""
FROM_REST = 0.3
"""What moved less before the jump than this share of its motion after it was at rest."""
LOCKED_Z = 3.0
"""Standard deviations over shuffled strikes: one chance in a thousand."""
USUAL_SECONDS = 1.0
FRAMES_AT_ONCE = 1024
"""Memory must not grow with the shot."""


@dataclass(frozen=True, slots=True)
class Jumps:
    """For each frame, the largest change of velocity of any cell since the frame before it, where
    both are known.

    The flow of frame k is the velocity between k-1 and k, so a change seen at k happened about
    frame k-1.
    """

    size: Float[ndarray, " n"]
    """Heights per second, weighed by the root of the share of the cell that moves, less the
    camera's own jerk."""
    cell: Int64[ndarray, " n"]
    """Which cell."""
    speed: Float[ndarray, "n cells"]
    """The largest momentum within two cells, to tell motion from rest: of what strikes, too."""
    luma: Float[ndarray, " n"]
    """As in `FrameMotion`."""


def jumps(frames: Frames) -> Jumps:
    """Of the frames of one shot."""
    found = []
    for first in range(0, len(frames), FRAMES_AT_ONCE):
        # One more on either side: a jump is from the frame before, a jerk is seen at the next.
        before = min(first, 1)
        some = _jumps(frames[first - before : first + FRAMES_AT_ONCE + 1])
        mine = slice(before, before + FRAMES_AT_ONCE)
        found.append([some.size[mine], some.cell[mine], some.speed[mine], some.luma[mine]])
    return Jumps(*(np.concatenate(part) for part in zip(*found, strict=True)))


def _jumps(frames: list[FrameMotion]) -> Jumps:
    velocity = np.stack([frame.velocity for frame in frames])
    moving = np.stack([frame.moving for frame in frames])
    change = np.linalg.norm(np.diff(velocity, axis=0, prepend=velocity[:1]), axis=3)
    either = np.maximum(moving, np.concatenate([moving[:1], moving[:-1]]))
    known = np.stack([frame.explained for frame in frames])
    known &= np.concatenate([known[:1], known[:-1]])
    sized = np.where(known & (either >= MIN_CELL_SHARE), change * np.sqrt(either), 0.0)
    flat = sized.reshape(len(frames), -1)
    speed = np.linalg.norm(velocity, axis=3) * moving
    around = np.stack([cv2.dilate(one, np.ones((5, 5))) for one in speed])
    largest = np.maximum(flat.max(axis=1) - _jerk(frames), 0.0)
    luma = np.array([frame.luma for frame in frames])
    return Jumps(largest, flat.argmax(axis=1), around.reshape(len(frames), -1), luma)


def _jerk(frames: list[FrameMotion]) -> Float[ndarray, " n"]:
    """Change of the camera's speed, at a frame or the next: some of it stays in what moves."""
    speed = np.array([frame.camera_speed for frame in frames])
    change = np.abs(np.diff(speed, prepend=speed[:1]))
    return np.maximum(change, np.r_[change[1:], 0.0])


def contacts(
    strikes: list[Strike],
    times: Float[ndarray, " n"],
    frames: Frames,
    lag_s: float | None = None,
) -> list[ContactEvent]:
    """The contacts of one shot, in order of time, on the clock of `times`; `lag_s` is how late its
    sound is, where that is known."""
    if not strikes or len(frames) < 4:
        return []
    seen = jumps(frames)
    happened = np.concatenate([times[:1], times[:-1]])
    struck_s = np.array([strike.t for strike in strikes]) - (lag_s or 0.0)
    steps = lockstep(struck_s.tolist(), times, frames)
    reach = MATCH_SECONDS if lag_s is None else KNOWN_SECONDS
    levels_db = np.array([strike.level_db for strike in strikes])
    loud_db = float(np.percentile(levels_db, 75))
    heard = levels_db >= loud_db - FAINT_DB
    likely = p_values(seen.size, happened, struck_s, reach)
    alone = np.zeros(len(strikes), np.bool_)
    alone[heard] = believed(likely[heard])
    found: dict[int, _Candidate] = {}
    for k in np.flatnonzero(heard):
        strike, struck, step = strikes[k], struck_s[k], steps[k]
        around = within(happened, struck, USUAL_SECONDS)
        near = within(happened, struck, reach)
        if near.start == near.stop or (seen.luma[near] < DARK_LUMA).any():
            continue
        frame = near.start + int(np.argmax(seen.size[near]))
        size, usual = float(seen.size[frame]), float(np.median(seen.size[around])) + 1e-3
        apart = abs(float(happened[frame] - struck))
        one = _Candidate(strike.t, frame, apart, size / usual, step, _from_rest(seen, frame))
        stands_out = one.ratio >= STAND_OUT
        loud = strike.level_db >= loud_db - LOUD_DB
        impact = stands_out and alone[k] and size >= MIN_JUMP
        counts = impact or (one.locked and (stands_out or loud))
        # One change is heard once, by the strike nearest to it.
        if counts and not (frame in found and found[frame].apart < one.apart):
            found[frame] = one
    # In step, but most start from rest: nothing strikes, a light flashes or a gun recoils.
    locked = [one for one in found.values() if one.locked]
    strike_it = 2 * sum(not one.rested for one in locked) > len(locked)
    kept = [one for one in found.values() if (strike_it if one.locked else not one.rested)]
    return [
        _event(one, float(happened[one.frame]), seen)
        for one in sorted(kept, key=lambda one: one.onset_s)
    ]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A strike with the largest change of velocity near it."""

    onset_s: float
    frame: int
    apart: float
    ratio: float
    step: Lockstep
    rested: bool

    @property
    def locked(self) -> bool:
        return self.step.z >= LOCKED_Z and self.step.agreement > 0


def _from_rest(seen: Jumps, frame: int) -> bool:
    cell = seen.cell[frame]
    before = seen.speed[max(frame - 2, 0) : frame, cell]
    after = seen.speed[frame : frame + 2, cell]
    return len(before) == 0 or bool(before.mean() < FROM_REST * after.mean())


def _event(one: _Candidate, t_video: float, seen: Jumps) -> ContactEvent:
    row, column = divmod(int(seen.cell[one.frame]), GRID_COLUMNS)
    stands_out = 1 - np.exp(-one.ratio / 2)
    agrees = max(0.0, one.step.agreement) * (1 - np.exp(-max(0.0, one.step.z) / LOCKED_Z))
    return ContactEvent(
        t=one.onset_s,
        t_audio=one.onset_s,
        t_video=t_video,
        lag_ms=1000 * (one.onset_s - t_video),
        strength=float(seen.size[one.frame]),
        confidence=float(1 - (1 - stands_out) * (1 - agrees)),
        x=(column + 0.5) / GRID_COLUMNS,
        y=(row + 0.5) / GRID_ROWS,
    )
