"""How fast `avdata encode` is beside the bare video autoencoder, and what decoding ahead costs.

    python benchmarks/encode_cost.py [--videos 4] [--runs 5] [--device cpu] [--batch-size 1]

Generated videos are ingested; a Wan autoencoder of random weights, with the strides and channels of
Wan2.2 and a fraction of its width (--base-dim 160 is its own), encodes their clips. "Bare" is that
encoder alone in a loop over frames that lie decoded in memory: once in one process with all threads
that torch takes, once in as many processes of one thread as the job has workers. "Job" is what the
workers of `avdata encode` do with a planned shard each: decode, encode pictures, sound and
captions, write tars; once with nothing decoded ahead, once with --decode-ahead clips. All have the
same cores. Each run takes all four in turn, after one that does not count; ratios are of one run,
to the faster of the two that are bare. Loading is left out. On a busy machine the threads of one
process wait for each other: let it be idle.

The last table is the peak memory of one worker, its children left out, by clips decoded ahead: of
large clips, with encoders that need no weights and an encoder that waits, so that whatever may be
decoded ahead is.
"""

import argparse
import multiprocessing
import os
import pickle
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import diffusers
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from avdata.encoders.choice import Encoders, EncodersConfig
from avdata.encoders.encoder import VideoEncoder
from avdata.encoders.spec import VideoSpec
from avdata.encoders.wan import WanVideo
from avdata.jobs.caption import caption
from avdata.jobs.encode import EncodeConfig, EncodeShard, planned
from avdata.jobs.engine import Engine
from avdata.jobs.ingest import ingest
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.measure.source import IngestConfig
from avdata.pipeline.media.clip import ClipMedia
from avdata.pipeline.shards.plan import PlanSettings, ShardPlan
from avdata.pipeline.sources.clips import clip_media
from avdata.pipeline.sources.copies import LocalCopies
from avdata.pipeline.world.corpus import WorldConfig, generate

WORLD = WorldConfig(height=288, width=480, seconds=9.0)
NAMES = ("bare, one process", "bare, {} processes", "job, none ahead", "job, {} ahead")
MEMORY_AHEAD = (0, 4, 8)
MEMORY_SIZE = (480, 832)
SECONDS_A_CLIP = 1.0
"""That the encoder waits where memory is measured: longer than a clip takes to decode."""


@dataclass
class Share:
    """What one process has of the clips: a shard, decoded clips of it, and both paces."""

    shard: bytes
    media: Sequence[ClipMedia]
    behind: EncodeShard
    ahead: EncodeShard

    def run(self, what: str) -> None:
        """bare, behind or ahead."""
        if what == "bare":
            bare(self.media, self.ahead.encoders, self.ahead.batch_size)
            return
        (self.behind if what == "behind" else self.ahead)({"plan": self.shard})


class PatientVideo:
    """A `VideoEncoder` that takes its time."""

    def __init__(self, video: VideoEncoder) -> None:
        self._video = video

    @property
    def spec(self) -> VideoSpec:
        """Of the encoder."""
        return self._video.spec

    def encode(self, frames: UInt8[Tensor, "b n h w 3"]) -> Float[Tensor, "b c t lh lw"]:
        """After a while."""
        time.sleep(SECONDS_A_CLIP * len(frames))
        return self._video.encode(frames)

    def decode(self, latents: Float[Tensor, "b c t lh lw"]) -> UInt8[Tensor, "b n h w 3"]:
        """At once."""
        return self._video.decode(latents)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--videos", type=int, default=4)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, help="as many as cores; with a GPU one")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--decode-ahead", type=int, default=EncodeConfig().decode_ahead)
    parser.add_argument("--base-dim", type=int, default=8)
    parser.add_argument("--height", type=int, default=96)
    parser.add_argument("--width", type=int, default=160)
    given = parser.parse_args()
    workers = given.workers or (1 if given.device != "cpu" else os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _write_autoencoder(root / "wan", given.base_dim)
        generate(root / "raw", replace(WORLD, num_videos=given.videos))
        ingest([root / "raw"], root / "manifest", IngestConfig(), engine=Engine(inline=True))
        caption(root / "manifest")
        clips = len(Manifest(root / "manifest").clips("keep"))
        config = EncodeConfig(
            height=given.height,
            width=given.width,
            device=given.device,
            encoders=EncodersConfig(video=WanVideo(str(root / "wan"))),
            batch_size=given.batch_size,
            decode_ahead=given.decode_ahead,
            # A shard a worker, all of one split.
            plan=PlanSettings(samples_per_shard=-(-clips // workers), val_fraction=0),
            # Of a shard of 256 two samples are decoded back; these shards have a few.
            round_trips=0,
        )
        sys.stdout.write(_throughput(root, config, given.runs, workers) + "\n")
        sys.stdout.flush()
        sys.stdout.write(_memory(root, config))


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


def _throughput(root: Path, config: EncodeConfig, runs: int, workers: int) -> str:
    threads = torch.get_num_threads()
    whole = _share(root, config, None)
    torch.set_num_threads(threads)  # A worker of the job has taken one.
    plans = {plan.name: plan for plan in _plans(root, config)}
    shards = sorted(plans)
    with ExitStack() as stack:
        # A pool each, so that each keeps its share.
        pools = [stack.enter_context(_process(_open, root, config, shard)) for shard in shards]

        def together(what: str) -> Callable[[], None]:
            return lambda: _wait([pool.submit(_run, what) for pool in pools])

        works = [lambda: whole.run("bare"), *map(together, ("bare", "behind", "ahead"))]
        times = np.array([[_seconds(work) for work in works] for _ in range(runs + 1)][1:])
    rates = len(whole.media) / times
    plan = plans[shards[0]]
    best = int(np.median(rates[:, :2], axis=0).argmax())
    lines = [
        f"{len(whole.media)} clips of {plan.shape.num_frames} x {config.height} x {config.width} "
        f"on {config.device}, {os.cpu_count()} cores, {len(shards)} of {workers} workers, batches "
        f"of {whole.ahead.batch_size}, {whole.ahead.threads} decoding threads a worker",
        "",
        f"| median of {runs} runs (lowest to highest) | clips/s | of the faster bare one |",
        "|---|---|---|",
    ]
    for name, rate, about in zip(NAMES, rates.T, (0, workers, 0, config.decode_ahead), strict=True):
        ratio = _spread(rate / rates[:, best], ".1%")
        lines.append(f"| {name.format(about)} | {_spread(rate, '.2f')} | {ratio} |")
    return "\n".join(lines) + "\n"


def _share(root: Path, config: EncodeConfig, shard: str | None) -> Share:
    """A shard, or for the loop in one process all clips of all."""
    behind = EncodeShard(root / "behind", replace(config, decode_ahead=0))
    ahead, copies = EncodeShard(root / "ahead", config), LocalCopies(1.0)
    plans = [plan for plan in _plans(root, config) if shard in (None, plan.name)]
    media = [clip_media(clip, plan.shape, copies) for plan in plans for clip in plan.clips]
    return Share(pickle.dumps(plans[0]), media, behind, ahead)


def _plans(root: Path, config: EncodeConfig) -> list[ShardPlan]:
    kept = Manifest(root / "manifest").clips("keep")
    return planned(root / "manifest", kept, config, config.encoders.specs())


def _process(open_: Callable[..., object], *given: object) -> ProcessPoolExecutor:
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=spawn, initializer=open_, initargs=given)


MINE: list[Share] = []
"""Of a process of a pool."""


def _open(root: Path, config: EncodeConfig, shard: str) -> None:
    MINE.append(_share(root, config, shard))


def _run(what: str) -> None:
    MINE[0].run(what)


def _wait(begun: Sequence[Future[None]]) -> None:
    for one in begun:
        one.result()


def _seconds(work: Callable[[], None]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def bare(media: Sequence[ClipMedia], encoders: Encoders, size: int) -> None:
    """The video encoder alone."""
    for first in range(0, len(media), size):
        some = [torch.from_numpy(one.frames) for one in media[first : first + size]]
        with torch.inference_mode():
            encoders.video.encode(torch.stack(some)).cpu()  # Waits for the device.


def _spread(values: np.ndarray, form: str) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def _memory(root: Path, config: EncodeConfig) -> str:
    height, width = MEMORY_SIZE
    config = replace(config, height=height, width=width, plan=PlanSettings(val_fraction=0))
    config = replace(config, encoders=EncodersConfig(), device="cpu", batch_size=1)
    clip = height * width * 3 * IngestConfig().num_frames / 1e6
    lines = [f"| clips ahead (frames of one: {clip:.1f} MB) | peak memory |", "|---|---|"]
    for ahead in MEMORY_AHEAD:
        # A process each: a peak never sinks.
        with _process(int) as pool:
            peak = pool.submit(_peak, root, replace(config, decode_ahead=ahead)).result()
        lines.append(f"| {ahead} | {peak:.0f} MB |")
    return "\n".join(lines) + "\n"


def _peak(root: Path, config: EncodeConfig) -> float:
    worker = EncodeShard(root / "peak", config)
    worker.encoders = replace(worker.encoders, video=PatientVideo(worker.encoders.video))
    for plan in _plans(root, config):
        worker({"plan": pickle.dumps(plan)})
    # Not ru_maxrss, which a process has from its parent.
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
