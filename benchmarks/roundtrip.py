"""What the default encoders lose: real clips encoded, stored as float16, decoded, compared.

    python benchmarks/roundtrip.py MEDIA... [--height 96 --width 160] [--clips-per-source 3]

Every second clip of each source is read as `avdata encode` reads it (33 frames at 16 fps, sound at
44.1 kHz) until the source ends or its share is reached. PSNR is over all pixels of a clip and left
out for black clips; SNR is over both channels of the sound that has latents and left out for silent
ones. The audio encoder keeps nothing above 600 Hz, so SNR is given twice: against the sound as it
is, and against the sound without what lies above 600 Hz. Without a size both sizes are measured.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from avdata.encoders.choice import Encoders, EncodersConfig
from avdata.encoders.spec import ClipShape
from avdata.errors import MediaError
from avdata.pipeline.measure.labels import SILENT_DBFS
from avdata.pipeline.measure.technical import BLACK_LUMA
from avdata.pipeline.media.clip import ClipMedia, read_clip
from avdata.pipeline.media.sound import dbfs
from avdata.pipeline.sources.listing import find_sources
from avdata.progress import progress

SIZES = ((96, 160), (192, 320))
KEPT_HZ = 600.0


@dataclass(slots=True)
class Found:
    """Decibels by what was measured, and what was left out."""

    decibels: dict[str, list[float]] = field(default_factory=dict)
    num_black: int = 0
    num_silent: int = 0

    def add(self, what: str, signal: float, error: float) -> None:
        """One clip's ratio of powers; an error of nothing counts as 100 dB."""
        ratio = signal / error if error > 0 else 1e10
        self.decibels.setdefault(what, []).append(10 * float(np.log10(max(ratio, 1e-10))))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("media", nargs="+", type=Path, help="Media files and folders of them.")
    parser.add_argument("--height", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--clips-per-source", type=int, default=3)
    given = parser.parse_args()
    if (given.height is None) != (given.width is None):
        parser.error("give both --height and --width, or neither")
    sizes = SIZES if given.height is None else ((given.height, given.width),)
    shapes = [ClipShape(height=height, width=width) for height, width in sizes]
    paths = [Path(uri) for uri in find_sources(given.media)["uri"].to_pylist()]
    encoders, found = EncodersConfig().open(torch.device("cpu")), Found()
    num_clips, no_clip = 0, []
    with progress("roundtrip", len(paths)) as advance:
        for path in paths:
            before = num_clips
            for clip in _clips(path, shapes, given.clips_per_source):
                _measure(clip, shapes, encoders, found)
                num_clips += 1
            if num_clips == before:
                no_clip.append(path.name)
            advance(path.name)
    sys.stdout.write(_table(found))
    sys.stdout.write(
        f"\n{num_clips} clips of {len(paths) - len(no_clip)} sources; left out: "
        f"{found.num_black} black pictures, {found.num_silent} silent sounds, and {len(no_clip)} "
        f"sources that gave no clip ({', '.join(no_clip) or 'none'}).\n"
    )


def _clips(path: Path, shapes: Sequence[ClipShape], most: int) -> Iterator[list[ClipMedia]]:
    """Every second clip, once a size, until the source ends."""
    for number in range(most):
        start = 2 * number * shapes[0].shown_seconds
        try:
            yield [read_clip(path, start, shape) for shape in shapes]
        except MediaError:
            return


def _measure(
    clip: list[ClipMedia], shapes: Sequence[ClipShape], encoders: Encoders, found: Found
) -> None:
    if float(clip[0].frames.mean()) / 255 < BLACK_LUMA:
        found.num_black += 1
    else:
        for shape, media in zip(shapes, clip, strict=True):
            frames = torch.from_numpy(media.frames)[None]
            what = f"picture at {shape.height}x{shape.width}, PSNR"
            found.add(what, 255.0**2, _picture_error(frames, encoders))
    samples = torch.from_numpy(clip[0].samples)[None]
    if dbfs(float(samples.square().mean().sqrt())) < SILENT_DBFS:
        found.num_silent += 1
        return
    decoded = encoders.audio.decode(_stored(encoders.audio.encode(samples)))
    heard = samples[..., : decoded.shape[-1]]
    for what, wanted in (
        ("sound, SNR against all of it", heard),
        (f"sound, SNR against what is below {KEPT_HZ:g} Hz", _low(heard)),
    ):
        found.add(what, float(wanted.square().mean()), float((wanted - decoded).square().mean()))


def _picture_error(frames: UInt8[Tensor, "1 n h w 3"], encoders: Encoders) -> float:
    """Mean squared error of 8-bit values."""
    decoded = encoders.video.decode(_stored(encoders.video.encode(frames)))
    return float((frames.float() - decoded.float()).square().mean())


def _stored(latents: Tensor) -> Tensor:
    """As a shard holds them."""
    return latents.half().float()


def _low(samples: Float[Tensor, "1 2 m"]) -> Float[Tensor, "1 2 m"]:
    """Without the frequencies above KEPT_HZ."""
    spectrum = torch.fft.rfft(samples)
    hertz = torch.fft.rfftfreq(samples.shape[-1], 1 / ClipShape().sample_rate)
    low: Tensor = torch.fft.irfft(spectrum * (hertz <= KEPT_HZ), n=samples.shape[-1])
    return low


def _table(found: Found) -> str:
    lines = ["| | clips | lower quartile | median | upper quartile |", "|---|---|---|---|---|"]
    for what, values in found.decibels.items():
        low, middle, high = np.percentile(values, [25, 50, 75])
        cells = " | ".join(f"{value:.1f} dB" for value in (low, middle, high))
        lines.append(f"| {what} | {len(values)} | {cells} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
