"""The truth beside a video: where its cuts, contacts, balls and camera are, and how it sounds.

Times are seconds from the first frame. Places are fractions of the width and of the height of the
picture, camera included; lists that go by frame have one value for each frame of the file.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

from avdata.pipeline.world.motion import MotionClass, motion_class

ImpulseSound = Literal["click", "beep", "bark", "speech", "note", "strike"]


@dataclass(frozen=True, slots=True)
class Contact:
    """An impact as the picture has it."""

    t: float
    shot: int
    x: float
    """Outside 0..1 when it happens beside the picture."""
    y: float
    impulse: float
    """1 stops a rubber ball of the usual radius that moves a height a second."""
    material: str
    """Of the ball that rings, which is `body`."""
    body: int
    on_screen: bool
    """Within the picture, and nothing before it."""
    occluded: bool
    """Within the picture, but what touches is wholly hidden from 0.1 s before to 0.1 s after. No
    contact is hidden in part, or for less."""
    t_heard: float | None
    """When it sounds; None when the sound does not have it."""


@dataclass(frozen=True, slots=True)
class Impulse:
    """A sudden sound that is no contact of this video."""

    t: float
    """When it sounds: its first sample is the nearest to this."""
    sound: ImpulseSound
    """`strike` for a contact of the video whose sound this one has."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A ball in the picture."""

    body: int
    """Counts over all shots."""
    shot: int
    material: str
    radius: float
    """Fraction of the height."""
    xs: list[float]
    """At the frames of its shot; a ball that is only heard lies outside 0..1."""
    ys: list[float]


@dataclass(frozen=True, slots=True)
class Passage:
    """A column as high as the picture that passes before a shot."""

    shot: int
    width: float
    xs: list[float]
    """Of its middle, at the frames of the shot; outside 0..1 before it comes and after."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What happens in a video."""

    kind: str
    seed: int
    index: int
    config_digest: str
    """Equal digests mean equal videos."""
    variants: list[str]
    """Fields of `VariantShares`, those that were applied."""
    fps: int
    """Frames are shown at multiples of 1 / fps; at some of them with `variable_rate`."""
    seconds: float
    frame_times: list[float]
    shots: list[tuple[float, float]]
    """Start and end of each."""
    contacts: list[Contact]
    """In order of time; those of a silent video happen in the picture only."""
    trajectories: list[Trajectory]
    passages: list[Passage]
    camera_xs: list[float]
    """How far the camera is to the right of where the scene was laid out; what stands still is
    seen this much further to the left."""
    camera_ys: list[float]
    area_speeds: list[float]
    """As `motion.speeds` defines them, in heights per second."""
    top_speeds: list[float]
    motion: MotionClass
    """Of the whole video."""
    silent: bool
    sound_lag_ms: float | None
    """By which the sound is late (negative: early); None when it is another video's."""
    sound_of: int | None
    """Index of the video (same configuration without variants) whose sound this one has."""
    other_impulses: list[Impulse]
    """In order of time. Every sudden sound is either one of these or a contact that is heard."""

    def evident(self) -> list[Contact]:
        """The contacts that are both seen and heard."""
        return [c for c in self.contacts if c.on_screen and c.t_heard is not None]

    def misleading(self) -> list[float]:
        """Times of the sudden sounds that no visible contact makes."""
        unseen = [c.t_heard for c in self.contacts if not c.on_screen and c.t_heard is not None]
        return sorted([*unseen, *(impulse.t for impulse in self.other_impulses)])

    def motion_between(self, start_s: float, end_s: float) -> MotionClass:
        """Of a clip; ValueError when no frame lies in it."""
        times = np.array(self.frame_times)
        inside = (times >= start_s) & (times < end_s)
        if not inside.any():
            raise ValueError(f"no frame from {start_s} s to {end_s} s")
        return motion_class(np.array(self.area_speeds)[inside], np.array(self.top_speeds)[inside])


@dataclass(frozen=True, slots=True)
class Video:
    """Pixels, sound at `SAMPLE_RATE` in -1..1 whose sample 0 sounds at frame 0, and the truth."""

    frames: UInt8[ndarray, "n h w 3"]
    samples: Float32[ndarray, "2 m"]
    truth: Truth
