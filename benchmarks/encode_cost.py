"""How fast `avdata encode` is beside the bare video autoencoder, and what decoding ahead costs.

    python benchmarks/encode_cost.py [--videos 4] [--runs 5] [--device cpu] [--batch-size 1]

Generated videos are ingested; a Wan autoencoder of random weights, with the strides and channels of
Wan2.2 and a fraction of its width (--base-dim 160 is its own), encodes their clips. "Bare" is that
encoder alone in a loop over frames that lie decoded in memory. "Job" is what a worker of
`avdata encode` does with planned shards: decode, encode pictures, sound and captions, write tars;
once with nothing decoded ahead, once with --decode-ahead clips. Each run takes all three in turn,
after one that does not count; a ratio is of one run. Loading is left out. The last table is the
peak memory of a process that encodes all of it, by clips decoded ahead.
"""

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import diffusers
import numpy as np
import torch

from avdata.encoders.choice import EncodersConfig
from avdata.encoders.wan import WanVideo
from avdata.jobs.caption import caption
from avdata.jobs.encode import EncodeConfig, EncodeShard
from avdata.jobs.engine import Engine
from avdata.jobs.ingest import ingest
from avdata.pipeline.measure.source import IngestConfig
from avdata.pipeline.media.clip import ClipMedia
from avdata.pipeline.sources.clips import clip_media
from avdata.pipeline.sources.copies import LocalCopies
from avdata.pipeline.world.corpus import WorldConfig, generate

WORLD = WorldConfig(height=288, width=480, seconds=9.0)
MEMORY_AHEAD = (0, 8, 32)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--videos", type=int, default=4)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--decode-ahead", type=int, default=EncodeConfig().decode_ahead)
    parser.add_argument("--base-dim", type=int, default=8)
    parser.add_argument("--height", type=int, default=96)
    parser.add_argument("--width", type=int, default=160)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _write_autoencoder(root / "wan", given.base_dim)
        generate(root / "raw", replace(WORLD, num_videos=given.videos))
        ingest([root / "raw"], root / "manifest", IngestConfig(), engine=Engine(inline=True))
        caption(root / "manifest")
        config = EncodeConfig(
            height=given.height,
            width=given.width,
            device=given.device,
            encoders=EncodersConfig(video=WanVideo(str(root / "wan"))),
            batch_size=given.batch_size,
            decode_ahead=given.decode_ahead,
            # Of a shard of 256 two samples are decoded back; these shards have a few.
            round_trips=0,
        )
        sys.stdout.write(_throughput(root, config, given.runs) + "\n" + _memory(root, config))


def _write_autoencoder(folder: Path, base_dim: int) -> None:
    torch.manual_seed(0)
    cast(Any, diffusers).AutoencoderKLWan(
        base_dim=base_dim,
        decoder_base_dim=8,  # Nothing is decoded.
        z_dim=48,
        in_channels=12,
        out_channels=12,
        is_residual=True,
        patch_size=2,
        scale_factor_spatial=16,
        scale_factor_temporal=4,
        latents_mean=[0.0] * 48,
        latents_std=[1.0] * 48,
    ).save_pretrained(folder)


def _throughput(root: Path, config: EncodeConfig, runs: int) -> str:
    behind = EncodeShard(root / "manifest", root / "behind", replace(config, decode_ahead=0))
    ahead = EncodeShard(root / "manifest", root / "ahead", config)
    clips = [clip for plan in ahead.plans.values() for clip in plan.clips]
    shape = next(iter(ahead.plans.values())).shape
    begin, copies = time.perf_counter(), LocalCopies(1.0)
    media = [clip_media(clip, shape, copies) for clip in clips]
    decoding = time.perf_counter() - begin
    works: list[Callable[[], None]] = [
        lambda: _bare(media, ahead),
        lambda: _job(behind),
        lambda: _job(ahead),
    ]
    times = np.array([[_seconds(work) for work in works] for _ in range(runs + 1)][1:])
    rates = len(clips) / times
    lines = [
        f"{len(clips)} clips of {shape.num_frames} x {config.height} x {config.width} on "
        f"{config.device}, batches of {ahead.batch_size}, {ahead.threads} decoding threads; "
        f"decoding alone {len(clips) / decoding:.2f} clips/s",
        "",
        f"| median of {runs} runs (lowest to highest) | clips/s | of the bare encoder |",
        "|---|---|---|",
    ]
    names = ("bare encoder", "job, none ahead", f"job, {config.decode_ahead} ahead")
    for name, rate in zip(names, rates.T, strict=True):
        lines.append(f"| {name} | {_spread(rate, '.2f')} | {_spread(rate / rates[:, 0], '.1%')} |")
    return "\n".join(lines) + "\n"


def _seconds(work: Callable[[], None]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _bare(media: Sequence[ClipMedia], worker: EncodeShard) -> None:
    size = worker.batch_size
    for first in range(0, len(media), size):
        some = [torch.from_numpy(one.frames) for one in media[first : first + size]]
        with torch.inference_mode():
            worker.encoders.video.encode(torch.stack(some)).cpu()  # Waits for the device.


def _job(worker: EncodeShard) -> None:
    for name in worker.plans:
        worker({"shard": name})


def _spread(values: np.ndarray, form: str) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def _memory(root: Path, config: EncodeConfig) -> str:
    assert config.height
    assert config.width
    clip = config.height * config.width * 3 * 33 / 1e6
    lines = [f"| clips ahead (frames of one: {clip:.1f} MB) | peak memory |", "|---|---|"]
    for ahead in MEMORY_AHEAD:
        # A process each: a peak never sinks.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            peak = pool.submit(_peak, root, replace(config, decode_ahead=ahead)).result()
        lines.append(f"| {ahead} | {peak:.0f} MB |")
    return "\n".join(lines) + "\n"


def _peak(root: Path, config: EncodeConfig) -> float:
    _job(EncodeShard(root / "manifest", root / "peak", config))
    # Not ru_maxrss, which a process has from its parent.
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
