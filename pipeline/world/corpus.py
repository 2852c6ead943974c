"""A corpus of small videos with exact truth: `generate(out, WorldConfig())`.

Video i depends on its kind, the seed, i and the format of the picture, on nothing else, so a
corpus grows by asking for more and a killed run goes on where it stopped.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from avdata import storage
from avdata.config import from_plain, to_plain
from avdata.errors import ConfigError
from avdata.pipeline.media.write import write_mp4
from avdata.pipeline.world import render, sound
from avdata.pipeline.world.scene import (
    SAMPLE_RATE,
    Contact,
    Shot,
    Span,
    Trajectory,
    Truth,
    Video,
)
from avdata.pipeline.world.scenes import KINDS, draw
from avdata.progress import progress

VERSION = 1
"""Raise when the same configuration gives other videos."""


@dataclass(frozen=True, slots=True)
class WorldConfig:
    """What to generate."""

    num_videos: int = 42
    kinds: tuple[str, ...] = KINDS
    """Video i is of kind i modulo their number."""
    seed: int = 0
    height: int = 144
    width: int = 240
    fps: int = 24
    seconds: float = 4.5

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds:
            raise ValueError(f"kinds must be among {', '.join(KINDS)}, not {list(self.kinds)}")
        if self.height < 32 or self.width < 32 or self.height % 2 or self.width % 2:
            raise ValueError(f"sizes must be even and 32 at least, not {self.height}x{self.width}")
        if self.fps < 1 or self.seconds < 1:
            raise ValueError(f"{self.seconds} s at {self.fps} fps: both must be 1 at least")

    def kind(self, index: int) -> str:
        """Of video `index`."""
        return self.kinds[index % len(self.kinds)]

    def digest(self, index: int) -> str:
        """Of all that video `index` depends on."""
        shape = [self.height, self.width, self.fps, self.seconds]
        return storage.digest_json([VERSION, self.kind(index), self.seed, index, *shape])


def generate(out: Path, config: WorldConfig) -> list[Path]:
    """Writes KIND-000012.mp4 and KIND-000012.truth.json for each video that is not there yet;
    the paths of all mp4 files, in order."""
    paths = []
    with progress("generate", config.num_videos) as advance:
        for index in range(config.num_videos):
            path = out / f"{config.kind(index)}-{index:06d}.mp4"
            if not _finished(path, config.digest(index)):
                video = make(config, index)
                write_mp4(path, video.frames, config.fps, video.samples, SAMPLE_RATE)
                # The truth comes last: where it is, the video is.
                storage.write_json(truth_path(path), to_plain(video.truth))
            paths.append(path)
            advance(path.name)
    return paths


def make(config: WorldConfig, index: int) -> Video:
    """Video `index`, always the same; its sound is as long as its frames are shown."""
    kind = config.kind(index)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((config.seed, index))))
    span = Span(round(config.seconds * config.fps), config.fps, config.width / config.height)
    shots = draw(kind, span, rng)
    truth = _truth(config, index, span, shots)
    frames = [render.frames(shot, config.height, config.width) for shot in shots]
    return Video(np.concatenate(frames), _sound(truth, span, rng), truth)


def truth_path(video: Path) -> Path:
    """Where the truth of an mp4 file lies."""
    return video.with_suffix(".truth.json")


def read_truth(path: Path) -> Truth:
    """From what `generate` wrote."""
    return from_plain(Truth, json.loads(path.read_text()), str(path))


def _finished(path: Path, digest: str) -> bool:
    truth = truth_path(path)
    if not (path.exists() and truth.exists()):
        return False
    try:
        return read_truth(truth).config_digest == digest
    except (ConfigError, json.JSONDecodeError):  # Of an older version.
        return False


def _sound(truth: Truth, span: Span, rng: np.random.Generator) -> Float32[ndarray, "2 m"]:
    num_samples = round(span.num_frames * SAMPLE_RATE / span.fps)
    if truth.silent:
        return sound.silence(num_samples)
    if truth.kind == "slide":
        return sound.hum(num_samples, rng)
    radii = {ball.body: ball.radius for ball in truth.trajectories}
    return sound.impacts(truth.contacts, radii, num_samples, rng)


def _truth(config: WorldConfig, index: int, span: Span, shots: Sequence[Shot]) -> Truth:
    kind, begin, bodies = config.kind(index), 0, 0
    edges: list[tuple[float, float]] = []
    contacts: list[Contact] = []
    trajectories: list[Trajectory] = []
    for number, shot in enumerate(shots):
        contacts += _contacts(shot, number, begin / span.fps, bodies)
        trajectories += _trajectories(shot, number, bodies)
        end = begin + shot.span.num_frames
        edges.append((begin / span.fps, end / span.fps))
        begin, bodies = end, bodies + len(shot.balls)
    return Truth(
        kind=kind,
        seed=config.seed,
        index=index,
        config_digest=config.digest(index),
        fps=config.fps,
        seconds=span.seconds,
        shots=edges,
        contacts=contacts,
        trajectories=trajectories,
        motion="static" if kind == "slide" else "moving",
        silent=kind == "silent",
    )


def _contacts(shot: Shot, number: int, begin: float, bodies: int) -> list[Contact]:
    contacts = []
    for impact in shot.impacts:
        x = (impact.x - shot.pan * impact.t) / shot.span.aspect
        contacts.append(
            Contact(
                t=begin + impact.t,
                shot=number,
                x=x,
                y=impact.y,
                impulse=impact.impulse,
                material=shot.balls[impact.body].material,
                body=bodies + impact.body,
                on_screen=0 <= x <= 1 and 0 <= impact.y <= 1,
            )
        )
    return contacts


def _trajectories(shot: Shot, number: int, bodies: int) -> list[Trajectory]:
    return [
        Trajectory(
            body=bodies + body,
            shot=number,
            material=ball.material,
            radius=ball.radius,
            xs=((track[:, 0] - shot.pan * shot.span.times) / shot.span.aspect).tolist(),
            ys=track[:, 1].tolist(),
        )
        for body, (ball, track) in enumerate(zip(shot.balls, shot.tracks, strict=True))
    ]
