"""Records of the small world: balls, rooms, shots, and the truth that is written beside a video.

Lengths are picture heights, times seconds, y grows downwards as in a picture; x = 0 is the left
edge of the picture at the start of a shot. Only the truth is in fractions of width and height.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, UInt8
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

    @property
    def seconds(self) -> float:
        """Until the last frame leaves the screen."""
        return self.num_frames / self.fps

    @property
    def times(self) -> Float[ndarray, " n"]:
        """Of the frames, from the start of the shot."""
        return np.arange(self.num_frames) / self.fps


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
    pan: float = 0.0
    """Speed of the camera in heights per second, to the right."""
    pivot: tuple[float, float] | None = None
    """Where the string of the last ball is fastened."""


@dataclass(frozen=True, slots=True)
class Contact:
    """An impact as the picture has it."""

    t: float
    """From the start of the video."""
    shot: int
    x: float
    """Fraction of the width; outside 0..1 when it happens beside the picture."""
    y: float
    """Fraction of the height."""
    impulse: float
    """1 stops a rubber ball of the usual radius that moves a height a second."""
    material: str
    """Of the ball that rings, which is `body`."""
    body: int
    on_screen: bool


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A ball in the picture, camera included."""

    body: int
    """Counts over all shots."""
    shot: int
    material: str
    radius: float
    """Fraction of the height."""
    xs: list[float]
    """Fractions of the width at the frames of its shot; a ball that is only heard lies outside."""
    ys: list[float]


@dataclass(frozen=True, slots=True)
class Truth:
    """What happens in a video."""

    kind: str
    seed: int
    index: int
    config_digest: str
    """Equal digests mean equal videos."""
    fps: int
    seconds: float
    shots: list[tuple[float, float]]
    """Start and end of each."""
    contacts: list[Contact]
    """In order of time; those of a silent video happen in the picture only."""
    trajectories: list[Trajectory]
    motion: str
    """static or moving."""
    silent: bool

    def evident(self) -> list[Contact]:
        """The contacts that are both seen and heard."""
        return [contact for contact in self.contacts if contact.on_screen and not self.silent]


@dataclass(frozen=True, slots=True)
class Video:
    """Pixels, sound at `SAMPLE_RATE` in -1..1 whose sample 0 sounds at frame 0, and the truth."""

    frames: UInt8[ndarray, "n h w 3"]
    samples: Float32[ndarray, "2 m"]
    truth: Truth
