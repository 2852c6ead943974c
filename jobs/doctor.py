"""`avdata doctor`: what works on this machine, what is missing, and what to do about it."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "missing", "note"]

# What each extra brings, by import name.
EXTRAS = {
    "media": ("av", "ffmpeg", "imageio_ffmpeg", "scipy"),
    "curate": (
        "cv2",
        "jinja2",
        "matplotlib",
        "pyarrow",
        "pyloudnorm",
        "ray",
        "scenedetect",
        "webdataset",
    ),
    "s3": ("s3fs",),
    "captions": ("httpx2",),
    "clip": ("open_clip",),
    "alike": ("faiss",),
    "encoders": ("PIL", "google.protobuf", "sentencepiece", "torchvision", "transformers"),
    "shots": ("onnxruntime",),
    "speech": ("silero_vad",),
    "track": ("tensorboard",),
}
OPTIONAL = ("s3", "captions", "clip", "alike", "encoders", "shots", "speech", "track")
DECODERS = ("h264", "hevc", "vp9", "av1", "aac", "mp3", "opus")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    what: str
    state: State
    detail: str


def diagnose() -> list[Finding]:
    """Everything, in the order in which it would fail."""
    checks: list[Callable[[], list[Finding]]] = [_machine, _extras, _decoding, _encoding, _torch]
    return [finding for check in checks for finding in check()]


def _machine() -> list[Finding]:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    free = shutil.disk_usage(".").free / 2**30
    return [
        Finding("python", "ok", platform.python_version()),
        Finding("processors", "ok", str(os.cpu_count())),
        Finding("memory", "ok", f"{pages * size / 2**30:.0f} GiB"),
        Finding("disk here", "ok" if free > 5 else "note", f"{free:.0f} GiB free"),
    ]


def _extras() -> list[Finding]:
    found = []
    for extra, modules in EXTRAS.items():
        absent = [name for name in modules if not _is_there(name)]
        if not absent:
            found.append(Finding(f"extra {extra}", "ok", ", ".join(modules)))
            continue
        detail = f"no {', '.join(absent)}; pip install 'avdata[{extra}]'"
        found.append(Finding(f"extra {extra}", "note" if extra in OPTIONAL else "missing", detail))
    return found


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # The package around it is missing, too.
        return False


def _decoding() -> list[Finding]:
    if importlib.util.find_spec("av") is None:
        return []
    import av

    lacking = [name for name in DECODERS if name not in av.codecs_available]
    detail = f"PyAV {av.__version__}, FFmpeg libraries inside"
    if lacking:
        return [Finding("decoding", "note", f"{detail}; cannot decode {', '.join(lacking)}")]
    return [Finding("decoding", "ok", f"{detail}: {' '.join(DECODERS)}")]


def _encoding() -> list[Finding]:
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        return []
    import imageio_ffmpeg

    try:
        program = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        return [Finding("encoding", "missing", f"no ffmpeg program: {error}")]
    listed = subprocess.run(
        [program, "-hide_banner", "-encoders"], capture_output=True, text=True, check=False
    ).stdout
    lacking = [name for name in ("libx264", "aac") if f" {name} " not in listed]
    if lacking:
        return [Finding("encoding", "missing", f"{program} has no {', '.join(lacking)}")]
    return [Finding("encoding", "ok", "libx264 and aac in the packaged ffmpeg program")]


def _torch() -> list[Finding]:
    import torch

    version = importlib.metadata.version("torch")
    if not torch.cuda.is_available():
        return [Finding("accelerator", "note", f"torch {version} sees none: demo models only")]
    cards = [torch.cuda.get_device_properties(k) for k in range(torch.cuda.device_count())]
    detail = ", ".join(f"{card.name} {card.total_memory / 2**30:.0f} GiB" for card in cards)
    return [Finding("accelerator", "ok", f"torch {version}: {detail}")]
