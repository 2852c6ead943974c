"""Records of the small world: balls, rooms, cameras, shots.

Lengths are picture heights, times seconds, y grows downwards as in a picture; x = 0 is the left
edge of the picture while the camera is at (0, 0).
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

SAMPLE_RATE = 44_100
GRAVITY = 3.5
"""Heights per second squared: a picture 2.8 m high."""
USUAL_RADIUS = 0.11


@dataclass(frozen=True, slots=True)
class Material:
    """What a ball is made of; the colour tells the ear what to expect."""

    density: float
    restitution: float
    """Share of the normal speed that is left after an impact with floor or wall."""
    colour: tuple[float, float, float]
    """Red, green, blue in 0..1."""
    modes_hz: tuple[float, ...]
    """Of a ball of `USUAL_RADIUS`; all under 600 Hz, where a narrow codec still hears them."""
    decay_s: float
    """Time in which the lowest mode falls to 1/e."""


MATERIALS = {
    "rubber": Material(1.0, 0.88, (0.88, 0.16, 0.20), (130.0, 205.0, 300.0), 0.07),
    "wood": Material(0.8, 0.78, (0.93, 0.56, 0.10), (200.0, 340.0, 515.0), 0.10),
    "glass": Material(1.6, 0.82, (0.05, 0.64, 0.50), (380.0, 540.0), 0.22),
    "metal": Material(2.4, 0.80, (0.34, 0.30, 0.86), (260.0, 390.0, 545.0), 0.35),
}


@dataclass(frozen=True, slots=True)
class Ball:
    """What does not change about a ball."""

    radius: float
    material: str

    @property
    def mass(self) -> float:
        """1 for rubber of the usual radius."""
        return MATERIALS[self.material].density * (self.radius / USUAL_RADIUS) ** 3

    @property
    def restitution(self) -> float:
        """As its material's."""
        return MATERIALS[self.material].restitution


@dataclass(frozen=True, slots=True)
class Room:
    """Where balls are: a floor, and walls unless they are infinitely far away."""

    floor: float
    left: float = -math.inf
    right: float = math.inf
    gravity: float = GRAVITY


@dataclass(frozen=True, slots=True)
class Impact:
    """A ball meets the floor, a wall or another ball."""

    t: float
    """From the start of the shot."""
    x: float
    y: float
    """The point of contact."""
    impulse: float
    body: int
    """The one that rings: of two balls the lighter."""
    other: int | None = None
    """None for the floor and the walls."""


@dataclass(frozen=True, slots=True)
class Look:
    """Colours (red, green, blue in 0..1) and the seed of the texture."""

    wall: tuple[float, float, float]
    floor: tuple[float, float, float]
    seed: int
    slide: bool = False
    """Title, lines and bars instead of a room."""


@dataclass(frozen=True, slots=True)
class Span:
    """The frames of one shot; frame k shows the time k / fps."""

    num_frames: int
    fps: int
    aspect: float
    """Width of the picture in heights."""
    kept: tuple[int, ...] | None = None
    """The frames that are in the file, in order; None for all. The first and the last always."""

    @property
    def seconds(self) -> float:
        """Until the last frame leaves the screen."""
        return self.num_frames / self.fps

    @property
    def times(self) -> Float[ndarray, " n"]:
        """Of the frames in the file, from the start of the shot."""
        numbers = np.arange(self.num_frames) if self.kept is None else np.array(self.kept)
        times: Float[ndarray, " n"] = numbers / self.fps
        return times


@dataclass(frozen=True, slots=True)
class Wave:
    """One sine of a camera's shake."""

    amplitude: float
    hz: float
    phase: float

    def at(self, times: Float[ndarray, " n"]) -> Float[ndarray, " n"]:
        """Its value."""
        return self.amplitude * np.sin(2 * np.pi * self.hz * times + self.phase)


@dataclass(frozen=True, slots=True)
class Camera:
    """Where the upper left corner of the picture is."""

    start: float = 0.0
    """x at the start of the shot, shake apart."""
    pan: float = 0.0
    """Heights per second, to the right."""
    shake_x: tuple[Wave, ...] = ()
    shake_y: tuple[Wave, ...] = ()

    def at(self, times: Float[ndarray, " n"]) -> Float[ndarray, "n 2"]:
        """x and y at times from the start of the shot."""
        x = self.start + self.pan * times
        y = np.zeros_like(times)
        for wave in self.shake_x:
            x = x + wave.at(times)
        for wave in self.shake_y:
            y = y + wave.at(times)
        return np.stack([x, y], axis=1)


@dataclass(frozen=True, slots=True)
class Occluder:
    """A column as high as the picture that passes before everything else."""

    start: float
    """x of its middle at the start of the shot."""
    speed: float
    """Heights per second, to the right."""
    width: float

    def at(self, times: Float[ndarray, " n"]) -> Float[ndarray, " n"]:
        """x of its middle at times from the start of the shot."""
        return self.start + self.speed * times

    def covers(
        self, x: Float[ndarray, " n"], times: Float[ndarray, " n"], radius: float = 0.0
    ) -> Bool[ndarray, " n"]:
        """Whether it hides all from x - radius to x + radius."""
        covered: Bool[ndarray, " n"] = np.abs(x - self.at(times)) + radius < self.width / 2
        return covered


@dataclass(frozen=True, slots=True)
class Shot:
    """All that is seen and all that happens between two cuts."""

    span: Span
    room: Room
    look: Look
    balls: tuple[Ball, ...] = ()
    tracks: tuple[Float[ndarray, "n 3"], ...] = ()
    """x, y and angle (radians, clockwise) of each ball at each frame."""
    impacts: tuple[Impact, ...] = ()
    camera: Camera = Camera()
    pivot: tuple[float, float] | None = None
    """Where the string of the last ball is fastened."""
    occluder: Occluder | None = None

    def centre(self, body: int) -> Float[ndarray, "n 2"]:
        """x and y of a ball at each frame as the camera sees it."""
        seen: Float[ndarray, "n 2"] = self.tracks[body][:, :2] - self.camera.at(self.span.times)
        return seen
