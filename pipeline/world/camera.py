"""Cameras for a shot that was laid out for one that stands still: held by hand, or panning slowly.

No contact may come near the edge of the picture by it: a movement that would do that is drawn
again, each time a little smaller.
"""

import math
from dataclasses import replace

import numpy as np

from avdata.pipeline.world.scene import Camera, Shot, Wave

SHAKE_HZ = (1.2, 6.0)
SHAKE_HEIGHTS = (0.006, 0.014)
"""Largest distance from the middle in x and in y: 1 to 2 pixels of 144."""
NUM_WAVES = 3
DRIFT_SPEED = (0.03, 0.07)
"""Heights per second."""
CLEAR_SECONDS = 0.1
SHRINK = 0.95
TRIES = 200


def shake(shot: Shot, rng: np.random.Generator) -> Shot:
    """A few sines in x and in y, on top of what the camera does."""
    for attempt in range(TRIES):
        reach = rng.uniform(*SHAKE_HEIGHTS) * SHRINK**attempt
        x, y = _waves(reach, rng), _waves(reach, rng)
        shaken = replace(shot, camera=replace(shot.camera, shake_x=x, shake_y=y))
        if _clear(shaken):
            break
    return shaken


def drift(shot: Shot, rng: np.random.Generator) -> Shot:
    """A slow pan that is at its start's place at some moment of the shot."""
    for attempt in range(TRIES):
        speed = float(rng.choice([-1, 1]) * rng.uniform(*DRIFT_SPEED)) * SHRINK**attempt
        start = -speed * float(rng.uniform(0, shot.span.seconds))
        drifting = replace(shot, camera=Camera(start, shot.camera.pan + speed))
        if _clear(drifting):
            break
    return drifting


def _waves(reach: float, rng: np.random.Generator) -> tuple[Wave, ...]:
    shares = rng.dirichlet(np.ones(NUM_WAVES))
    return tuple(
        Wave(reach * share, hz, phase)
        for share, hz, phase in zip(
            shares.tolist(),
            rng.uniform(*SHAKE_HZ, NUM_WAVES).tolist(),
            rng.uniform(0, 2 * math.pi, NUM_WAVES).tolist(),
            strict=True,
        )
    )


def _clear(shot: Shot) -> bool:
    """Around its contacts a ball is wholly inside the picture or wholly beside it."""
    times, width = shot.span.times, shot.span.aspect
    for impact in shot.impacts:
        left, top = shot.camera.at(np.array([impact.t]))[0]
        inside = 0 <= impact.x - left <= width and 0 <= impact.y - top <= 1
        near = np.abs(times - impact.t) < CLEAR_SECONDS + 1 / shot.span.fps
        for body in (impact.body, impact.other):
            if body is None:
                continue
            x, y = shot.centre(body)[near].T
            radius = shot.balls[body].radius
            aside = (x < -radius) | (x > width + radius)
            across = (x > radius) & (x < width - radius) & (y > radius) & (y < 1 - radius)
            if not (across if inside else aside).all():
                return False
    return True
