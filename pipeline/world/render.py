"""Pictures of a shot: a textured room, soft shadows, shaded balls with a stripe to see them turn.

Every edge is drawn from its distance in pixels, so positions are exact to a fraction of a pixel
without supersampling. The centre of pixel i lies at (i + 0.5) / height; there is no motion blur.
"""

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from avdata.pipeline.world.scene import MATERIALS, Ball, Look, Shot

LAMP = np.array([-0.45, -0.65, 0.61])
HIGHLIGHT = np.array([-0.25, -0.36, 0.90])
"""Towards the lamp, and half way from there to the eye; x right, y down, z to the eye."""
STRIPE = np.array([0.97, 0.96, 0.92])
STRIPE_WIDTH = 0.22
"""Half the stripe, in radii."""
SKIRTING = 0.05
"""The floor begins this far above where balls stand on it, in heights."""
TEXTURE_CELLS = ((0.30, 0.04), (0.10, 0.04), (0.045, 0.03))
"""Size in heights and strength of each octave of the texture."""

Colours = tuple[tuple[tuple[float, float, float], tuple[float, float, float]], ...]
LIGHT: Colours = (
    ((0.86, 0.83, 0.77), (0.66, 0.56, 0.47)),
    ((0.74, 0.82, 0.86), (0.56, 0.60, 0.62)),
    ((0.80, 0.86, 0.78), (0.60, 0.64, 0.54)),
)
DARK: Colours = (
    ((0.28, 0.33, 0.42), (0.38, 0.36, 0.36)),
    ((0.38, 0.29, 0.34), (0.46, 0.40, 0.38)),
    ((0.24, 0.36, 0.36), (0.36, 0.42, 0.38)),
)
"""Wall and floor of rooms, greyish: no background has the colour of a ball."""

Image = Float[ndarray, "h w 3"]


def frames(shot: Shot, height: int, width: int) -> UInt8[ndarray, "n h w 3"]:
    """All frames of a shot that are in the file, RGB."""
    camera = shot.camera.at(np.append(shot.span.times, shot.span.seconds))
    corner, way = camera.min(axis=0), np.ptp(camera, axis=0)
    scenery = _scenery(shot, height, width, corner, way)
    pictures = []
    for k, (left, top) in enumerate(camera[:-1].tolist()):
        column, row = ((left, top) - corner) * height
        image = _window(scenery, column, row, (height, width))
        places = [(track[k, 0] - left, track[k, 1] - top, track[k, 2]) for track in shot.tracks]
        for ball, (x, y, _) in zip(shot.balls, places, strict=True):
            _shade_floor(image, ball, x, y, shot.room.floor - top)
        if shot.pivot is not None:
            pivot = (shot.pivot[0] - left, shot.pivot[1] - top)
            _draw_string(image, pivot, places[-1][:2])
        for ball, place in zip(shot.balls, places, strict=True):
            draw_ball(image, ball, *place)
        if shot.occluder is not None:
            middle = shot.occluder.at(shot.span.times[k : k + 1])[0] - left
            _draw_column(image, middle, shot.occluder.width)
        pictures.append((255 * image.clip(0, 1) + 0.5).astype(np.uint8))
    return np.stack(pictures)


def draw_ball(image: Image, ball: Ball, x: float, y: float, angle: float) -> None:
    """In place; lengths in heights of the image."""
    patch, u, v = _patch(image, x, y, ball.radius)
    pixels = ball.radius * image.shape[0]
    distance = np.hypot(u, v)
    normal = np.stack([u, v, np.sqrt(np.maximum(0.0, 1 - distance**2))], axis=2)
    across = u * np.cos(angle) + v * np.sin(angle)
    striped = _inside((STRIPE_WIDTH - np.abs(across)) * pixels)
    colour = _blend(np.array(MATERIALS[ball.material].colour), STRIPE, striped)
    shade = 0.5 + 0.6 * np.maximum(0.0, normal @ LAMP)
    gloss = 0.7 * np.maximum(0.0, normal @ HIGHLIGHT) ** 40
    lit = colour * shade[..., None] + gloss[..., None]
    patch[...] = _blend(patch, lit, _inside((1 - distance) * pixels))


def _shade_floor(image: Image, ball: Ball, x: float, y: float, floor: float) -> None:
    """A shadow that widens and fades as the ball rises."""
    rise = max(0.0, floor - y - ball.radius)
    patch, u, v = _patch(image, x, floor, ball.radius * 2.5 * (1 + 0.6 * rise))
    depth = 0.5 * np.exp(-2.5 * rise) * np.exp(-((2.6 * u) ** 2) - (9.0 * v) ** 2)
    patch *= 1 - depth[..., None]


def _draw_string(image: Image, top: tuple[float, float], end: tuple[float, float]) -> None:
    height = image.shape[0]
    points = [tuple(round(256 * (c * height - 0.5)) for c in point) for point in (top, end)]
    mask = np.zeros(image.shape[:2], np.uint8)
    cv2.line(mask, points[0], points[1], 255, max(1, round(height / 72)), cv2.LINE_AA, shift=8)
    image[...] = _blend(image, np.array([0.25, 0.22, 0.2]), mask / 255)


def _draw_column(image: Image, middle: float, width: float) -> None:
    """A grey column whose pattern goes with it."""
    height = image.shape[0]
    x = ((np.arange(image.shape[1]) + 0.5) / height - middle)[None, :]
    y = ((np.arange(height) + 0.5) / height)[:, None]
    level = 0.45 + 0.05 * np.sin(50 * x) * np.sin(43 * y) + 0.06 * np.sin(17 * x + 23 * y)
    column = np.repeat(level[..., None], 3, axis=2)
    image[...] = _blend(image, column, _inside((width / 2 - np.abs(x)) * height) * np.ones_like(y))


def _scenery(
    shot: Shot, height: int, width: int, corner: Float[ndarray, "2"], way: Float[ndarray, "2"]
) -> Image:
    """All that stands still, from `corner` on, as large as the camera sees of it in the shot."""
    rng = np.random.default_rng(shot.look.seed)
    columns = width + int(way[0] * height) + 2
    rows = height + (int(way[1] * height) + 2 if way[1] > 0 else 0)
    if shot.look.slide:
        return _slide(rng, shot.look, rows, columns)
    x = corner[0] + (np.arange(columns) + 0.5)[None, :] / height
    y = corner[1] + (np.arange(rows) + 0.5)[:, None] / height
    edge = shot.room.floor - SKIRTING
    wall = np.array(shot.look.wall) * (1.08 - 0.22 * y)[..., None]
    floor = np.array(shot.look.floor) * (0.86 + 0.5 * (y - edge))[..., None]
    room = _blend(wall, floor, _inside((y - edge) * height) * np.ones_like(x))
    for side, beyond in ((shot.room.left, -1), (shot.room.right, 1)):
        stands = _inside(beyond * (x - side) * height) * np.ones_like(y)
        room = _blend(room, 0.6 * np.array(shot.look.floor), stands)
    room *= _texture(rng, rows, columns)[..., None]
    return room


def _slide(rng: np.random.Generator, look: Look, height: int, width: int) -> Image:
    image = np.tile(np.array(look.wall), (height, width, 1))
    ink = np.array(look.floor) * 0.5

    def box(x: float, y: float, w: float, h: float) -> None:
        left, top, right, bottom = (round(c * height) for c in (x, y, x + w, y + h))
        image[top:bottom, left:right] = ink

    aspect = width / height
    box(0.08, 0.09, rng.uniform(0.4, 0.6) * aspect, 0.09)
    for line in range(4):
        box(0.10, 0.30 + 0.14 * line, rng.uniform(0.25, 0.45) * aspect, 0.045)
    for bar in range(4):
        tall = rng.uniform(0.1, 0.45)
        box((0.62 + 0.08 * bar) * aspect, 0.82 - tall, 0.055 * aspect, tall)
    return image


def _texture(rng: np.random.Generator, height: int, width: int) -> Float[ndarray, "h w"]:
    """Smooth noise around 1, for the eye and for optical flow to hold on to."""
    texture = np.ones((height, width))
    for size, strength in TEXTURE_CELLS:
        rows, columns = (max(2, round(length / height / size)) for length in (height, width))
        cells = rng.standard_normal((rows, columns))
        texture += strength * cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)
    return texture


def _window(scenery: Image, column: float, row: float, size: tuple[int, int]) -> Image:
    """(height, width) pixels from a place on that may lie between pixels."""
    height, width = size
    # Between two pixels, not among four: nothing in the texture is finer than several pixels.
    left, top = int(column), int(row)
    here, next_to_it = (scenery[top : top + height + 1, k : k + width] for k in (left, left + 1))
    across: Image = here + (column - left) * (next_to_it - here)
    if len(scenery) == height:
        return across
    between: Image = across[:-1] + (row - top) * (across[1:] - across[:-1])
    return between


def _patch(
    image: Image, x: float, y: float, reach: float
) -> tuple[Image, Float[ndarray, "a b"], Float[ndarray, "a b"]]:
    """The part of the image around (x, y), a view, and its coordinates in units of `reach`."""
    height, width = image.shape[:2]
    column, row, pixels = x * height - 0.5, y * height - 0.5, reach * height
    rows = np.arange(max(0, int(row - pixels) - 1), max(0, min(height, int(row + pixels) + 3)))
    columns = np.arange(
        max(0, int(column - pixels) - 1), max(0, min(width, int(column + pixels) + 3))
    )
    u, v = np.meshgrid((columns - column) / pixels, (rows - row) / pixels)
    top, left = (int(axis[0]) if len(axis) else 0 for axis in (rows, columns))
    return image[top : top + len(rows), left : left + len(columns)], u, v


def _inside(pixels: Float[ndarray, "a b"]) -> Float[ndarray, "a b"]:
    """How much of a pixel is covered whose centre lies so far inside of an edge."""
    return np.clip(0.5 + pixels, 0.0, 1.0)


def _blend(
    under: Float[ndarray, "..."], over: Float[ndarray, "..."], share: Float[ndarray, "a b"]
) -> Image:
    blended: Image = under + share[..., None] * (over - under)
    return blended
