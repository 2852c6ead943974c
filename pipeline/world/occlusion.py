"""A column passes before the scene, and a contact happens behind it.

So that the truth is no matter of opinion, the balls of every contact are either wholly hidden or
wholly clear of the column for a while before and after it; a passage of which that is not true is
drawn again.
"""

from dataclasses import replace
from typing import Literal

import numpy as np

from avdata.pipeline.world.scene import Impact, Occluder, Shot

HIDDEN_SECONDS = 0.1
SPEED = (0.3, 2.0)
ROOMY = (1.1, 1.6)
"""Width of the column over the least that hides a standing ball for long enough."""
MARGIN = 0.02
"""Around a ball, for soft edges."""
TRIES = 400


def occlude(shot: Shot, rng: np.random.Generator) -> Shot:
    """The shot itself where nothing can be hidden clearly."""
    seen = [impact for impact in shot.impacts if _in_picture(shot, impact)]
    for _ in range(TRIES if seen else 0):
        impact = seen[int(rng.integers(len(seen)))]
        speed = float(rng.choice([-1, 1]) * rng.uniform(*SPEED))
        reach = max(shot.balls[body].radius for body in _bodies(impact))
        width = 2 * float(rng.uniform(*ROOMY)) * (reach + abs(speed) * HIDDEN_SECONDS)
        column = Occluder(impact.x - speed * impact.t, speed, width)
        passed = replace(shot, occluder=column)
        states = [_view(passed, one) for one in seen]
        if "partly" not in states and "hidden" in states:
            return passed
    return shot


def hidden(shot: Shot, impact: Impact) -> bool:
    """Whether the point of a contact is behind the column; all that touches there is, then."""
    where, when = np.array([impact.x]), np.array([impact.t])
    return shot.occluder is not None and bool(shot.occluder.covers(where, when)[0])


def _view(shot: Shot, impact: Impact) -> Literal["hidden", "partly", "clear"]:
    """What the column leaves of a contact."""
    assert shot.occluder is not None
    times = shot.span.times
    near = np.abs(times - impact.t) < max(HIDDEN_SECONDS, 1.5 / shot.span.fps)
    covered, clear = [], []
    for body in _bodies(impact):
        x, reach = shot.tracks[body][near, 0], shot.balls[body].radius + MARGIN
        covered.append(bool(shot.occluder.covers(x, times[near], reach).all()))
        clear.append(not bool(shot.occluder.covers(x, times[near], -reach).any()))
    if all(covered):
        return "hidden"
    return "clear" if all(clear) else "partly"


def _bodies(impact: Impact) -> list[int]:
    return [impact.body] if impact.other is None else [impact.body, impact.other]


def _in_picture(shot: Shot, impact: Impact) -> bool:
    x, y = (np.array([impact.x, impact.y]) - shot.camera.at(np.array([impact.t]))[0]).tolist()
    return bool(0 <= x <= shot.span.aspect and 0 <= y <= 1)
