"""Films, encoders with weights, and what `avdata encode` makes of both, for tests of the jobs."""

from collections.abc import Sequence
from pathlib import Path

from avdata.encoders.choice import EncodersConfig
from avdata.encoders.oobleck import OobleckAudio
from avdata.encoders.t5 import T5Text, UMT5Text
from avdata.encoders.wan import WanVideo
from avdata.jobs.caption import caption
from avdata.jobs.cli import app
from avdata.jobs.engine import Engine
from avdata.jobs.ingest import ingest
from avdata.jobs.shell import run_app
from avdata.pipeline.measure.source import IngestConfig
from tests.encoders.checkpoints import oobleck, t5, umt5, wan22
from tests.pipeline.media import Sound, bouncing_ball, clicks, times_at, write_movie

SMALL = ["--set", "height=64", "--set", "width=96"]


def write_raw(folder: Path, names: Sequence[str]) -> Path:
    """Good films of these names and two files that are none."""
    pictures = bouncing_ball()
    for name in names:
        sound = Sound(clicks([0.75, 1.5], 2.5))
        write_movie(folder / name, pictures, times_at(24, len(pictures)), sound)
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("not a video at all\n" * 50)
    return folder


def write_manifest(raw: Path, root: Path) -> Path:
    """Captioned clips of two films."""
    raw.mkdir()
    pictures = bouncing_ball()
    for name, hits in (("one.mp4", [0.75, 1.5]), ("two.mp4", [0.5, 1.25])):
        sound = Sound(clicks(hits, 2.5))
        write_movie(raw / name, pictures, times_at(24, len(pictures)), sound)
    ingest([raw], root, IngestConfig(num_frames=17), engine=Engine(inline=True))
    caption(root)
    return root


def write_models(root: Path) -> Path:
    """A pipeline like Wan's, a VAE like Oobleck's, an encoder like FLAN-T5's."""
    wan22(root / "wan" / "vae")
    umt5(root / "wan")
    oobleck(root / "oobleck" / "vae")
    t5(root / "t5")
    return root


def chosen(models: Path) -> EncodersConfig:
    return EncodersConfig(
        video=WanVideo(str(models / "wan")),
        audio=OobleckAudio(str(models / "oobleck")),
        video_text=UMT5Text(str(models / "wan")),
        audio_text=T5Text(str(models / "t5")),
    )


def places(models: Path) -> list[str]:
    """As options of a command whose encoders are of these kinds already."""
    folders = {"video": "wan", "audio": "oobleck", "video_text": "wan", "audio_text": "t5"}
    return [
        x
        for role, folder in folders.items()
        for x in ("--set", f"encoders.{role}.path={models / folder}")
    ]


def settings(models: Path) -> list[str]:
    """As options of `avdata encode`."""
    kinds = {"video": "wan", "audio": "oobleck", "video_text": "umt5", "audio_text": "t5"}
    wanted = [x for role, kind in kinds.items() for x in ("--set", f"encoders.{role}.kind={kind}")]
    return [*wanted, *places(models), *SMALL]


def run(command: str, *options: object) -> int:
    """The exit code of a command in this process; typer leaves by SystemExit."""
    try:
        return run_app(app, [command, *map(str, options)])
    except SystemExit as stop:
        return int(stop.code or 0)


def encode(manifest: Path, out: Path | str, *options: str) -> int:
    return run("encode", manifest, "--out", out, "--inline", *options)
