"""A corpus of small videos with exact truth: `generate(out, WorldConfig())`.

Video i depends on its kind, the seed, i, its variants and the format of the picture, on nothing
else, so a corpus grows by asking for more and a killed run goes on where it stopped.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from avdata import storage
from avdata.config import from_plain, to_plain
from avdata.errors import ConfigError
from avdata.pipeline.media.write import write_mp4
from avdata.pipeline.world import render, sound
from avdata.pipeline.world.distractors import SOUNDS
from avdata.pipeline.world.motion import motion_class
from avdata.pipeline.world.observe import Observed, contacts, observed
from avdata.pipeline.world.scene import SAMPLE_RATE, Shot, Span
from avdata.pipeline.world.scenes import KINDS, draw
from avdata.pipeline.world.soundtrack import Heard, hear, layered
from avdata.pipeline.world.truth import Contact, Truth, Video
from avdata.pipeline.world.variable_rate import write_variable_mp4
from avdata.pipeline.world.variants import Chosen, VariantShares, chosen, filmed
from avdata.progress import progress

MAX_DONORS = 100
"""Videos that are tried for a wrong sound."""
VERSION = 2
"""Raise when the same configuration gives other videos or other truth."""


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
    variants: VariantShares = field(default_factory=VariantShares)

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

    def chosen(self, index: int) -> Chosen:
        """The variants that video `index` is to have."""
        return chosen(self.variants, self.kind(index), self.seed, index)

    def digest(self, index: int) -> str:
        """Of all that video `index` depends on."""
        shape = [self.height, self.width, self.fps, self.seconds]
        names = self.chosen(index).names
        # A wrong sound comes from another video of the same kind, which the kinds decide.
        kinds = [len(self.kinds)] if "wrong_sound" in names else []
        drawn = [self.kind(index), self.seed, index, *kinds, *names]
        return storage.digest_json([VERSION, *drawn, *shape])


def generate(out: Path, config: WorldConfig) -> list[Path]:
    """Writes KIND-000012.mp4 and KIND-000012.truth.json for each video that is not there yet;
    the paths of all mp4 files, in order."""
    paths = []
    with progress("generate", config.num_videos) as advance:
        for index in range(config.num_videos):
            path = out / f"{config.kind(index)}-{index:06d}.mp4"
            if not _finished(path, config.digest(index)):
                video = make(config, index)
                _write(path, video)
                # The truth comes last: where it is, the video is.
                storage.write_json(truth_path(path), to_plain(video.truth))
            paths.append(path)
            advance(path.name)
    return paths


def make(config: WorldConfig, index: int) -> Video:
    """Video `index`, always the same; its sound is as long as its frames are shown."""
    scene, variants = _scene(config, index), config.chosen(index)
    shots = filmed(scene.shots, variants)
    seen = observed(shots)
    step = len(config.kinds)  # To the next of the same kind.
    donors = (
        (donor, contacts(_scene(config, donor).shots))
        for donor in range(index + step, index + 1 + step * MAX_DONORS, step)
    )
    heard = hear(seen.contacts, variants, scene.span.seconds, donors)
    frames = [render.frames(shot, config.height, config.width) for shot in shots]
    if heard.sound_of is None:
        samples = _sound(scene, heard.contacts)
    else:
        samples = _sound(_scene(config, heard.sound_of), heard.donor)
    truth = _truth(config, index, seen, heard)
    return Video(np.concatenate(frames), layered(samples, heard), truth)


def truth_path(video: Path) -> Path:
    """Where the truth of an mp4 file lies."""
    return video.with_suffix(".truth.json")


def read_truth(path: Path) -> Truth:
    """From what `generate` wrote."""
    return from_plain(Truth, json.loads(path.read_text()), str(path))


def _write(path: Path, video: Video) -> None:
    truth = video.truth
    numbers = [round(t * truth.fps) for t in truth.frame_times]
    if len(numbers) == numbers[-1] + 1:
        write_mp4(path, video.frames, truth.fps, video.samples, SAMPLE_RATE)
    else:
        write_variable_mp4(path, video.frames, numbers, truth.fps, video.samples)


def _finished(path: Path, digest: str) -> bool:
    truth = truth_path(path)
    if not (path.exists() and truth.exists()):
        return False
    try:
        return read_truth(truth).config_digest == digest
    except (ConfigError, json.JSONDecodeError):  # Of an older version.
        return False


@dataclass(frozen=True, slots=True)
class _Scene:
    """What happens in a video, before any variant."""

    kind: str
    span: Span
    shots: tuple[Shot, ...]
    rng: np.random.Generator
    """Its sound is drawn from what is left."""


def _scene(config: WorldConfig, index: int) -> _Scene:
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((config.seed, index))))
    span = Span(round(config.seconds * config.fps), config.fps, config.width / config.height)
    kind = config.kind(index)
    return _Scene(kind, span, draw(kind, span, rng), rng)


def _sound(scene: _Scene, heard: list[Contact]) -> Float32[ndarray, "2 m"]:
    num_samples = round(scene.span.num_frames * SAMPLE_RATE / scene.span.fps)
    if scene.kind == "silent":
        return sound.silence(num_samples)
    if scene.kind == "slide":
        return sound.hum(num_samples, scene.rng)
    balls = [ball for shot in scene.shots for ball in shot.balls]
    radii = {body: ball.radius for body, ball in enumerate(balls)}
    return sound.impacts(heard, radii, num_samples, scene.rng)


def _truth(config: WorldConfig, index: int, seen: Observed, heard: Heard) -> Truth:
    kind, silent = config.kind(index), config.kind(index) == "silent"
    impulses = heard.impulses
    happened = {
        "occlusion": bool(seen.passages),
        "wrong_sound": heard.sound_of is not None,
        "distractors": any(impulse.sound in SOUNDS for impulse in impulses),
    }
    names = [name for name in config.chosen(index).names if happened.get(name, True)]
    return Truth(
        kind=kind,
        seed=config.seed,
        index=index,
        config_digest=config.digest(index),
        variants=names,
        fps=config.fps,
        seconds=seen.shots[-1][1],
        frame_times=seen.frame_times,
        shots=seen.shots,
        contacts=[replace(c, t_heard=None) for c in heard.contacts] if silent else heard.contacts,
        trajectories=seen.trajectories,
        passages=seen.passages,
        camera_xs=seen.camera_xs,
        camera_ys=seen.camera_ys,
        area_speeds=seen.area_speeds,
        top_speeds=seen.top_speeds,
        motion=motion_class(np.array(seen.area_speeds), np.array(seen.top_speeds)),
        silent=silent,
        sound_lag_ms=heard.lag_ms,
        sound_of=heard.sound_of,
        other_impulses=impulses,
    )
