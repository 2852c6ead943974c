"""Edited videos with exact truth: shots of the small world joined by cuts, fades and dissolves,
with camera flashes and strobes that are none.

Neighbouring shots are of different looks, light and dark: two white rooms one after the other are
hardly told apart by eye.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

from avdata.pipeline.world import render
from avdata.pipeline.world.render import LIGHT
from avdata.pipeline.world.scene import Shot, Span
from avdata.pipeline.world.scenes import draw

Join = Literal["cut", "fade", "dissolve"]
JOINS: tuple[Join, ...] = ("cut", "fade", "dissolve")
SCENES = ("bounce", "collide", "pan", "offscreen")
SHOT_SECONDS = (2.2, 3.2)
FADE_SECONDS = (0.3, 0.8)
"""Of each side."""
HOLD_SECONDS = (0.05, 0.4)
"""Black between them."""
DISSOLVE_SECONDS = (0.4, 1.2)
FLASH_LEVEL = (0.6, 1.0)
"""Share of white in the picture."""
STROBE_SECONDS = 0.125


@dataclass(frozen=True, slots=True)
class Edit:
    """Between two shots: frames from `begin` to before `end` are of neither; none in a cut."""

    kind: Join
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class EditedVideo:
    """Pictures and the truth about them."""

    frames: UInt8[ndarray, "n h w 3"]
    edits: list[Edit]


def edited(seed: int, num_shots: int = 5, fps: int = 24, height: int = 144) -> EditedVideo:
    """Always the same for the same arguments; 5:3."""
    rng = np.random.default_rng(np.random.SeedSequence((0xED17, seed)))
    width = 2 * round(height * 5 / 6)
    frames: list[Float32[ndarray, "h w 3"]] = []
    edits: list[Edit] = []
    last: Shot | None = None
    for number in range(num_shots):
        last = _unlike(
            last, Span(round(rng.uniform(*SHOT_SECONDS) * fps), fps, width / height), rng
        )
        pictures = render.frames(last, height, width).astype(np.float32)
        _light_up(pictures, fps, rng)
        if number:
            edits.append(_join(frames, pictures, str(rng.choice(JOINS)), fps, rng))
        else:
            frames.extend(pictures)
    return EditedVideo((np.stack(frames) + 0.5).astype(np.uint8), edits)


def _unlike(last: Shot | None, span: Span, rng: np.random.Generator) -> Shot:
    while True:
        shot = draw(str(rng.choice(SCENES)), span, rng)[0]
        if last is None or _is_light(shot) != _is_light(last):
            return shot


def _is_light(shot: Shot) -> bool:
    return shot.look.wall in [wall for wall, _ in LIGHT]


def _light_up(pictures: Float32[ndarray, "n h w 3"], fps: int, rng: np.random.Generator) -> None:
    """In place: nothing, one flash of one to three frames, or a strobe of four."""
    at = int(rng.uniform(0.45, 0.55) * len(pictures))
    level, kind = rng.uniform(*FLASH_LEVEL), rng.integers(3)
    starts = [] if kind == 0 else [at + round(k * STROBE_SECONDS * fps) for k in range(4)]
    for start in starts[:1] if kind == 1 else starts:
        lit = pictures[start : start + (int(rng.integers(1, 4)) if kind == 1 else 1)]
        lit += level * (255 - lit)


def _join(
    frames: list[Float32[ndarray, "h w 3"]],
    pictures: Float32[ndarray, "n h w 3"],
    kind: str,
    fps: int,
    rng: np.random.Generator,
) -> Edit:
    """Appends the next shot."""
    begin = len(frames)
    if kind == "cut":
        frames.extend(pictures)
        return Edit("cut", begin, begin)
    if kind == "fade":
        length = max(2, round(rng.uniform(*FADE_SECONDS) * fps))
        gain = (np.arange(length, dtype=np.float32) + 1) / (length + 1)
        for k in range(length):
            frames[begin - 1 - k] = frames[begin - 1 - k] * gain[k]
        hold = max(1, round(rng.uniform(*HOLD_SECONDS) * fps))
        frames.extend(np.zeros((hold, *pictures.shape[1:]), np.float32))
        pictures[:length] *= gain[:, None, None, None]
        frames.extend(pictures)
        return Edit("fade", begin - length, begin + hold + length)
    length = max(3, round(rng.uniform(*DISSOLVE_SECONDS) * fps))
    share = (np.arange(length, dtype=np.float32) + 1) / (length + 1)
    for k in range(length):
        under = frames[begin - length + k]
        frames[begin - length + k] = under + share[k] * (pictures[k] - under)
    frames.extend(pictures[length:])
    return Edit("dissolve", begin - length, begin)
