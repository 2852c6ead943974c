"""The kinds of video: how each draws its shots.

A shot is drawn at random and run; one that is unclear (a ball leaves the picture, impacts too
close in time to be told apart or too weak to be heard) is drawn again.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from avdata.errors import RunError
from avdata.pipeline.world.physics import Flight, Run, simulate
from avdata.pipeline.world.render import DARK, LIGHT, Colours
from avdata.pipeline.world.scene import GRAVITY, MATERIALS, Ball, Camera, Look, Room, Shot, Span

FLOOR = 0.88
WALL_THICKNESS = 0.04
QUIET_SECONDS = 0.15
"""Without impacts at both ends of a shot."""
MIN_GAP_SECONDS = 0.08
MIN_SPEED = 0.3
"""Of an impact worth hearing: its impulse over the mass of the ball that rings."""
TRIES = 2000
CUT_SHARE = (0.47, 0.53)
"""Near enough to the middle for a clip on either side."""

Attempt = Callable[[Span, Colours, np.random.Generator], Shot | None]


def draw(kind: str, span: Span, rng: np.random.Generator) -> tuple[Shot, ...]:
    """The shots of a video of one of `KINDS`."""
    if kind == "two_shots":
        cut = round(rng.uniform(*CUT_SHARE) * span.num_frames)
        parts = [Span(n, span.fps, span.aspect) for n in (cut, span.num_frames - cut)]
        looks = (LIGHT, DARK) if rng.random() < 0.5 else (DARK, LIGHT)
        return tuple(
            _clear(_impacts(rng), part, look, rng) for part, look in zip(parts, looks, strict=True)
        )
    attempt = _impacts(rng) if kind == "silent" else ATTEMPTS[kind]
    return (_clear(attempt, span, LIGHT + DARK, rng),)


def bounce(span: Span, colours: Colours, rng: np.random.Generator) -> Shot | None:
    """One or two balls fall and bounce, without meeting."""
    room, balls = Room(FLOOR), _balls(int(rng.integers(1, 3)), rng)
    starts = [
        _start(rng, x, rng.uniform(0.15, 0.4), speed=0.2) for x in _apart(rng, span, len(balls))
    ]
    run = simulate(room, balls, starts, span.seconds)
    if run is None or any(impact.other is not None for impact in run.impacts):
        return None
    return _filmed(run, span, room, _look(colours, rng), balls)


def collide(span: Span, colours: Colours, rng: np.random.Generator) -> Shot | None:
    """Two or three balls between walls, in the air and on the floor."""
    room = Room(FLOOR, WALL_THICKNESS, span.aspect - WALL_THICKNESS)
    balls = _balls(int(rng.integers(2, 4)), rng)
    starts = [
        _start(rng, x, rng.uniform(0.15, 0.5), speed=1.0)
        if rng.random() < 0.5
        else _sliding(rng, x, ball, speed=1.6)
        for x, ball in zip(_apart(rng, span, len(balls)), balls, strict=True)
    ]
    run = simulate(room, balls, starts, span.seconds)
    if run is None or all(impact.other is None for impact in run.impacts):
        return None
    return _filmed(run, span, room, _look(colours, rng), balls)


def pan(span: Span, colours: Colours, rng: np.random.Generator) -> Shot | None:
    """The camera goes along with a bouncing ball, a little slower or faster."""
    room, balls = Room(FLOOR), _balls(1, rng)
    speed = float(rng.choice([-1, 1]) * rng.uniform(0.12, 0.25))
    x = rng.uniform(0.3, 0.7) * span.aspect
    start = _start(rng, x, rng.uniform(0.15, 0.4), speed=0.08, drift=speed)
    run = simulate(room, balls, [start], span.seconds)
    assert run is not None  # One ball leans on nothing.
    return _filmed(run, span, room, _look(colours, rng), balls, speed)


def offscreen(span: Span, colours: Colours, rng: np.random.Generator) -> Shot | None:
    """A pendulum swings or a ball rolls; another bounces beside the picture and is only heard."""
    room, balls = Room(FLOOR), _balls(2, rng)
    beside = rng.uniform(0.4, 0.7)
    x = float(rng.choice([-beside, span.aspect + beside]))
    run = simulate(room, balls[:1], [_start(rng, x, rng.uniform(0.0, 0.4))], span.seconds)
    assert run is not None
    heard = _filmed(run, span, room, _look(colours, rng), balls[:1])
    pivot = (span.aspect / 2, 0.02) if rng.random() < 0.5 else None
    track = _swing(span.times, pivot, rng) if pivot else _roll(span, balls[1], rng)
    return replace(heard, balls=balls, tracks=(*heard.tracks, track), pivot=pivot)


def slide(span: Span, _: Colours, rng: np.random.Generator) -> Shot:
    """Nothing moves."""
    return Shot(span, Room(FLOOR), replace(_look(LIGHT, rng), slide=True))


ATTEMPTS: dict[str, Attempt] = {
    one.__name__: one for one in (bounce, collide, pan, offscreen, slide)
}
KINDS = ("bounce", "collide", "pan", "offscreen", "silent", "slide", "two_shots")


def _impacts(rng: np.random.Generator) -> Attempt:
    return bounce if rng.random() < 0.5 else collide


def _clear(attempt: Attempt, span: Span, colours: Colours, rng: np.random.Generator) -> Shot:
    for _ in range(TRIES):
        shot = attempt(span, colours, rng)
        if shot is not None and _distinct(shot) and _framed(shot):
            return shot
    raise RunError(
        f"{attempt.__name__}: no clear scene of {span.seconds:g} s in {TRIES} tries; ask for "
        "fewer seconds or a wider picture"
    )


def _distinct(shot: Shot) -> bool:
    """Impacts are apart from each other and from the ends of the shot, and none is faint."""
    times = [impact.t for impact in shot.impacts]
    end = shot.span.seconds - QUIET_SECONDS
    return (
        all(QUIET_SECONDS < t < end for t in times)
        and all(late - early > MIN_GAP_SECONDS for early, late in itertools.pairwise(times))
        and all(hit.impulse > MIN_SPEED * shot.balls[hit.body].mass for hit in shot.impacts)
    )


def _framed(shot: Shot) -> bool:
    """Every ball is wholly inside the picture or wholly beside it, and stays so."""
    for body, ball in enumerate(shot.balls):
        x, y = shot.centre(body).T
        aside = (x < -ball.radius) | (x > shot.span.aspect + ball.radius)
        across = (x > ball.radius) & (x < shot.span.aspect - ball.radius)
        inside = across & (y > ball.radius) & (y < 1 - ball.radius)
        if not (aside.all() or inside.all()):
            return False
    return True


def _balls(count: int, rng: np.random.Generator) -> tuple[Ball, ...]:
    """Of different materials, and so of different colours."""
    materials = rng.permutation(list(MATERIALS))[:count]
    return tuple(Ball(float(rng.uniform(0.08, 0.13)), str(name)) for name in materials)


def _look(colours: Colours, rng: np.random.Generator) -> Look:
    wall, floor = colours[rng.integers(len(colours))]
    return Look(wall, floor, seed=int(rng.integers(2**31)))


def _apart(rng: np.random.Generator, span: Span, count: int) -> list[float]:
    """Places across the picture, one in the middle of each of `count` lanes."""
    return [(k + rng.uniform(0.3, 0.7)) * span.aspect / count for k in range(count)]


def _start(
    rng: np.random.Generator, x: float, y: float, speed: float = 0.0, drift: float = 0.0
) -> Flight:
    vx, vy = rng.uniform(-speed, speed, 2).tolist()
    angle, spin = rng.uniform(-2, 2, 2).tolist()
    return Flight(0.0, x, y, drift + vx, vy, GRAVITY, angle, spin)


def _sliding(rng: np.random.Generator, x: float, ball: Ball, speed: float) -> Flight:
    start = _start(rng, x, FLOOR - ball.radius, speed)
    return replace(start, vy=0.0, pull=0.0)


def _filmed(
    run: Run, span: Span, room: Room, look: Look, balls: tuple[Ball, ...], speed: float = 0.0
) -> Shot:
    tracks = tuple(run.track(body, span.times) for body in range(len(balls)))
    return Shot(span, room, look, balls, tracks, tuple(run.impacts), Camera(pan=speed))


def _roll(span: Span, ball: Ball, rng: np.random.Generator) -> Float[ndarray, "n 3"]:
    """From one side to the other, slow enough to stay in the picture."""
    way = span.aspect - 2.2 * ball.radius
    speed = rng.choice([-1, 1]) * rng.uniform(0.8, 1.0) * way / span.seconds
    x = span.aspect / 2 + speed * (span.times - span.seconds / 2)
    return np.stack([x, np.full_like(x, FLOOR - ball.radius), x / ball.radius], axis=1)


def _swing(
    times: Float[ndarray, " n"], pivot: tuple[float, float], rng: np.random.Generator
) -> Float[ndarray, "n 3"]:
    """A pendulum, by the formula for small swings."""
    length, widest, phase = rng.uniform((0.45, 0.45, 0.0), (0.58, 0.75, 2 * math.pi))
    angle = widest * np.sin(math.sqrt(GRAVITY / length) * times + phase)
    x, y = pivot[0] + length * np.sin(angle), pivot[1] + length * np.cos(angle)
    return np.stack([x, y, -angle], axis=1)
