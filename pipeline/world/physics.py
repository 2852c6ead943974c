"""Balls that fall, bounce and collide, from impact to impact without time steps.

Between impacts every ball has a constant acceleration, gravity in the air and none on the floor,
so the time of the next impact is the root of a polynomial. Impacts are instantaneous; they have
restitution and no friction, so a ball keeps its spin, and on the floor it slides.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from avdata.pipeline.world.scene import Ball, Impact, Room

REST_SPEED = 0.3
"""A ball that would leave the floor slower than this stays on it."""
LEAN_SECONDS = 0.03
"""Two balls that meet again within this have come to lean on each other."""


@dataclass(frozen=True, slots=True)
class Flight:
    """A ball's way from time `t` on, until its next impact."""

    t: float
    x: float
    y: float
    vx: float
    vy: float
    pull: float
    """Downward acceleration: the room's gravity in the air, 0 on the floor."""
    angle: float = 0.0
    spin: float = 0.0
    """Radians per second, clockwise."""

    def at(self, t: float) -> "Flight":
        """The same way, from time `t` on."""
        dt = t - self.t
        return replace(
            self,
            t=t,
            x=self.x + self.vx * dt,
            y=self.y + self.vy * dt + 0.5 * self.pull * dt**2,
            vy=self.vy + self.pull * dt,
            angle=self.angle + self.spin * dt,
        )


@dataclass(frozen=True, slots=True)
class Run:
    """What happened."""

    flights: list[list[Flight]]
    """Of each ball, in order of time."""
    impacts: list[Impact]

    def state(self, body: int, t: float) -> Flight:
        """Where ball `body` is at `t`, and how fast."""
        return next(f for f in reversed(self.flights[body]) if f.t <= t or f.t == 0.0).at(t)

    def track(self, body: int, times: Float[ndarray, " n"]) -> Float[ndarray, "n 3"]:
        """x, y and angle of ball `body`."""
        states = [self.state(body, t) for t in times.tolist()]
        return np.array([(state.x, state.y, state.angle) for state in states])


def simulate(
    room: Room, balls: Sequence[Ball], starts: Sequence[Flight], until: float
) -> Run | None:
    """From flights that start at 0 to `until`; None when balls start where they cannot be, or
    come to lean on each other, which is not modelled."""
    if not _possible(room, balls, starts):
        return None
    run = Run([[start] for start in starts], [])
    now = list(starts)
    while True:
        t, body, other = _next_impact(room, balls, now)
        if t > until:
            return run
        now = [flight.at(t) for flight in now]
        if isinstance(other, int):
            if _met_again(run.impacts, (body, other), t):
                return None
            a, b, impulse = collide((balls[body], balls[other]), (now[body], now[other]))
            now[body], now[other] = _settled(a, room), _settled(b, room)
            impact = _pair_impact(balls, now, (body, other), impulse)
            run.flights[other].append(now[other])
        else:
            now[body], impact = _against(room, balls[body], now[body], body, other)
        run.flights[body].append(now[body])
        run.impacts.append(impact)


def collide(
    balls: tuple[Ball, Ball], flights: tuple[Flight, Flight]
) -> tuple[Flight, Flight, float]:
    """Both flights after the two touch, and the impulse along the line of their centres."""
    (ball, other), (flight, struck) = balls, flights
    dx, dy = struck.x - flight.x, struck.y - flight.y
    distance = math.hypot(dx, dy)
    nx, ny = dx / distance, dy / distance
    approach = (flight.vx - struck.vx) * nx + (flight.vy - struck.vy) * ny
    reduced = ball.mass * other.mass / (ball.mass + other.mass)
    impulse = (1 + min(ball.restitution, other.restitution)) * reduced * approach
    back, push = impulse / ball.mass, impulse / other.mass
    after = replace(flight, vx=flight.vx - back * nx, vy=flight.vy - back * ny)
    return after, replace(struck, vx=struck.vx + push * nx, vy=struck.vy + push * ny), impulse


def _possible(room: Room, balls: Sequence[Ball], starts: Sequence[Flight]) -> bool:
    """Inside the room and outside each other."""
    for body, (ball, at) in enumerate(zip(balls, starts, strict=True)):
        beside = at.x - ball.radius < room.left or at.x + ball.radius > room.right
        if beside or at.y > room.floor - ball.radius:
            return False
        for other, near in zip(balls[:body], starts, strict=False):
            if math.hypot(at.x - near.x, at.y - near.y) < ball.radius + other.radius:
                return False
    return True


def _next_impact(
    room: Room, balls: Sequence[Ball], now: Sequence[Flight]
) -> tuple[float, int, int | str]:
    """Time, ball, and the other ball or the name of what it meets; time is inf for never."""
    found: list[tuple[float, int, int | str]] = [(math.inf, 0, "floor")]
    for body, (ball, flight) in enumerate(zip(balls, now, strict=True)):
        t = flight.t
        found.append((t + _time_to_floor(room.floor - ball.radius, flight), body, "floor"))
        if flight.vx != 0:
            wall = room.left + ball.radius if flight.vx < 0 else room.right - ball.radius
            found.append((t + (wall - flight.x) / flight.vx, body, "wall"))
        for other in range(body):
            reach = ball.radius + balls[other].radius
            found.append((t + _time_to_touch(flight, now[other], reach), body, other))
    return min(found, key=lambda impact: impact[0])


def _time_to_floor(lowest: float, flight: Flight) -> float:
    """Until the centre comes down to `lowest`."""
    if flight.pull == 0:
        return (lowest - flight.y) / flight.vy if flight.vy > 0 else math.inf
    speed_there = math.sqrt(max(0.0, flight.vy**2 + 2 * flight.pull * (lowest - flight.y)))
    return max(0.0, (speed_there - flight.vy) / flight.pull)


def _time_to_touch(a: Flight, b: Flight, reach: float) -> float:
    """Until the centres come as near as `reach`: a root of |D(t)|^2 - reach^2, D of degree two."""
    x = np.array([0.0, b.vx - a.vx, b.x - a.x])
    y = np.array([(b.pull - a.pull) / 2, b.vy - a.vy, b.y - a.y])
    gap = np.convolve(x, x) + np.convolve(y, y) - [0, 0, 0, 0, reach**2]
    roots = np.roots(gap)
    times = roots.real[(abs(roots.imag) < 1e-9) & (roots.real > -1e-9)]
    # Where the gap grows they part: that root is the touch of a moment ago.
    closing = times[np.polyval(np.polyder(gap), times) < 0]
    return max(0.0, float(closing.min())) if len(closing) else math.inf


def _against(
    room: Room, ball: Ball, flight: Flight, body: int, what: int | str
) -> tuple[Flight, Impact]:
    if what == "wall":
        side = math.copysign(ball.radius, flight.vx)
        impulse = ball.mass * (1 + ball.restitution) * abs(flight.vx)
        after = replace(flight, vx=-ball.restitution * flight.vx)
        return after, Impact(flight.t, flight.x + side, flight.y, impulse, body)
    up = ball.restitution * flight.vy
    up, pull = (up, room.gravity) if up >= REST_SPEED else (0.0, 0.0)
    impulse = ball.mass * (flight.vy + up)
    after = replace(flight, y=room.floor - ball.radius, vy=-up, pull=pull)
    return after, Impact(flight.t, flight.x, room.floor, impulse, body)


def _settled(struck: Flight, room: Room) -> Flight:
    """A ball on the floor leaves it only when it is struck well upwards or downwards."""
    if struck.pull != room.gravity and abs(struck.vy) < REST_SPEED:
        return replace(struck, vy=0.0)
    return replace(struck, pull=room.gravity)


def _pair_impact(
    balls: Sequence[Ball], now: Sequence[Flight], pair: tuple[int, int], impulse: float
) -> Impact:
    rings, other = sorted(pair, key=lambda body: balls[body].mass)
    at, towards = now[rings], now[other]
    share = balls[rings].radius / (balls[rings].radius + balls[other].radius)
    x, y = at.x + share * (towards.x - at.x), at.y + share * (towards.y - at.y)
    return Impact(at.t, x, y, impulse, rings, other)


def _met_again(impacts: Sequence[Impact], pair: tuple[int, int], t: float) -> bool:
    recent = itertools.takewhile(lambda impact: impact.t > t - LEAN_SECONDS, reversed(impacts))
    return any({impact.body, impact.other} == set(pair) for impact in recent)
