"""`avdata encode`: the kept clips of a manifest to shards, a planned shard the unit of work."""

import dataclasses
import os
import pickle
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from avdata import config as configuration
from avdata import storage
from avdata.encoders.choice import EncodersConfig
from avdata.encoders.device import usable, within_memory
from avdata.encoders.spec import ClipShape, Specs
from avdata.errors import UsageError
from avdata.jobs.decoding import ClusterDecoding, DecodeOn, Reading, WorkerDecoding, on_cluster
from avdata.jobs.device import on_gpu
from avdata.jobs.engine import Engine, stream
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.measure.source import IngestConfig
from avdata.pipeline.media.geometry import Fit
from avdata.pipeline.record import Clip
from avdata.pipeline.selection import require_kept
from avdata.pipeline.shards.ahead import ahead
from avdata.pipeline.shards.buckets import PRESETS, Buckets, Size
from avdata.pipeline.shards.dataset import THREADS, Dataset, open_dataset
from avdata.pipeline.shards.decoders import DecodeLimits
from avdata.pipeline.shards.encode import VERSION, encode_clips
from avdata.pipeline.shards.failures import require_decoded, worded
from avdata.pipeline.shards.plan import PlanSettings, ShardPlan, plan_shards
from avdata.pipeline.shards.quality import chosen
from avdata.pipeline.shards.writer import is_done, write_dataset, write_shard
from avdata.progress import progress
from avdata.versions import versions

SMALLER = (
    "set batch_size to less than {}, or where it is 1 encoders.video.tiled=true (of kind wan) or "
    "encoders.ROLE.dtype=bfloat16, which alter latents"
)


@dataclass(frozen=True, slots=True)
class EncodeConfig:
    """Pixels of the clips and how they are dealt into shards."""

    preset: str = "paper"
    """paper (192x320), paper-2s, paper-5s, 480p or 720p: see docs/shards.md."""
    height: int | None = None
    """With `width`: one size instead of the preset's."""
    width: int | None = None
    sizes: tuple[Size, ...] = ()
    """[[height, width], ...] instead of the preset's; each clip takes that of its aspect ratio."""
    num_frames: tuple[int, ...] = ()
    """Each clip takes the most that its length has room for; empty takes the preset's, else what
    the manifest's clips have.
    """
    fps: int | None = None
    """None is the preset's, else that of the manifest."""
    fit: Fit = field(default_factory=Fit)
    device: str = "cpu"
    encoders: EncodersConfig = field(default_factory=EncodersConfig)
    """One of each role by its `kind`: `encoders.video.kind=wan encoders.video.path=FOLDER`."""
    plan: PlanSettings = field(default_factory=PlanSettings)
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    """What decoding one clip may cost; beyond them it is left out, with the reason in the index."""
    retry_failed: bool = False
    """Encodes shards again that lack clips which could not be decoded, for whatever reason. Those
    that ran out of time or memory are tried again unasked.
    """
    max_failed_share: float = 0.1
    """Of the clips: when more cannot be decoded, and more than one, the job stops."""
    max_copies_gib: float = 16.0
    """Local copies of remote sources that each worker keeps, or each machine that decodes for
    others, and the largest it fetches.
    """
    batch_size: int | None = None
    """Clips encoded at once; None is 1 on a CPU, 4 on a GPU."""
    decode_ahead: int = 8
    """Clips that each worker decodes, or has decoded, while others are encoded."""
    round_trips: int = 2
    """Samples of each shard that are decoded back; what that gave is in the index."""
    decode_threads: int | None = None
    """Children of each worker that decode. None is 1 on a CPU, which encoding needs itself; on a
    GPU one a clip ahead, or one a core.
    """
    decode_on: DecodeOn = "auto"
    """worker: clips are decoded by children of the worker that encodes them, on its machine.
    cluster: wherever Ray has a core free; sources must have the same names on all machines. auto:
    cluster where workers are on GPUs and Ray has several machines, else worker.
    """

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, not {self.preset!r}")
        if (self.height is None) != (self.width is None):
            raise ValueError("height and width must be given together")
        if self.height is not None and self.sizes:
            raise ValueError("give either height and width or sizes")
        for name in ("batch_size", "decode_threads"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be positive, not {value}")
        for name in ("decode_ahead", "round_trips"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, but is {getattr(self, name)}")
        if not 0 <= self.max_failed_share <= 1:
            raise ValueError(f"max_failed_share must be in [0, 1], not {self.max_failed_share}")
        if not self.max_copies_gib > 0:
            raise ValueError(f"max_copies_gib must be positive, not {self.max_copies_gib}")

    def buckets(self, num_frames: int, fps: int, specs: Specs) -> Buckets:
        """The shapes of clips; `num_frames` and `fps` are the manifest's. UsageError when the
        video encoder cannot take them.
        """
        preset = PRESETS[self.preset]
        one = () if self.height is None or self.width is None else ((self.height, self.width),)
        buckets = Buckets(
            sizes=one or self.sizes or preset.sizes,
            num_frames=self.num_frames or preset.num_frames or (num_frames,),
            fps=self.fps or preset.fps or fps,
            sample_rate=specs.audio.sample_rate,
        )
        for height, width in buckets.sizes:
            for count in buckets.num_frames:
                try:
                    ClipShape(count, buckets.fps, height, width)
                    specs.video.latent_shape(count, height, width)
                except ValueError as error:
                    what = f"cannot encode {count} frames of {height}x{width}"
                    raise UsageError(f"{what}: {error}") from error
        return buckets


@dataclass
class EncodeShard:
    """One planned shard."""

    out: Path
    config: EncodeConfig

    def __post_init__(self) -> None:
        torch.set_num_threads(1)  # Shards are encoded in parallel.
        device = usable(self.config.device)
        far = on_cluster(self.config.decode_on, device.type)
        self.batch_size, self.threads = _pace(self.config, device, far)
        with within_memory("set encoders.ROLE.dtype=bfloat16"):
            self.encoders = self.config.encoders.open(device)
        reading = Reading(self.config.limits, self.config.fit, self.config.max_copies_gib)
        self.decoding = ClusterDecoding(reading) if far else WorkerDecoding(reading)

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        plan: ShardPlan = pickle.loads(item["plan"])
        decode = partial(self.decoding, shape=plan.shape)
        with ahead(decode, plan.clips, self.config.decode_ahead, self.threads) as media:
            ids = (clip.clip_id for clip in plan.clips)
            checked = chosen(ids, self.config.round_trips)
            samples = encode_clips(
                plan.clips, media, plan.shape, self.encoders, self.batch_size, checked
            )
            # It is here that clips are encoded.
            with within_memory(SMALLER.format(self.batch_size)):
                index = write_shard(self.out, plan, samples)
        why = [worded(one.stage, one.reason, one.detail) for one in index.failed[:1]]
        return {
            "shard": plan.name,
            "seen": len(plan.clips),
            "failed": len(index.failed),
            "why": why,
        }


def _pace(config: EncodeConfig, device: torch.device, far: bool) -> tuple[int, int]:
    """Clips a batch, and threads that wait for children, or for the cluster."""
    most = min(config.decode_ahead, os.cpu_count() or 1)
    batch, threads = (1, 1) if device.type == "cpu" else (4, most)
    threads = config.decode_ahead if far else config.decode_threads or threads
    return config.batch_size or batch, max(1, threads)


def planned(root: Path, kept: list[Clip], config: EncodeConfig, specs: Specs) -> list[ShardPlan]:
    """The shards of a manifest's kept clips."""
    settings = Manifest(root).settings()
    ingested = configuration.from_plain(IngestConfig, settings, str(root / "clips.parquet"))
    buckets = config.buckets(ingested.num_frames, ingested.fps, specs)
    fit = dataclasses.asdict(config.fit)
    encoding = [VERSION, dataclasses.asdict(specs), fit, config.round_trips]
    return plan_shards(kept, buckets.shape, config.plan, encoding)


def encode(root: Path, out: Path, config: EncodeConfig, engine: Engine | None = None) -> Dataset:
    """Encodes the shards that are not there yet and commits the dataset.

    UsageError while another command writes the folder.
    """
    manifest = Manifest(root)
    storage.require_ours(out, ("encode.json", "dataset.json"), "shards")
    engine = engine or Engine()
    gpu = on_gpu(config.device, engine)
    if engine.inline and config.decode_on == "cluster":
        raise UsageError("decode_on = cluster: not --inline, where there is no Ray")
    kept = require_kept(manifest)
    if any(clip.captions is None for clip in kept):
        raise UsageError(f"{root}: clips without captions; run `avdata caption {root}` first")
    specs = config.encoders.specs()
    plans = planned(root, kept, config, specs)
    with storage.written(out):
        storage.write_json(out / "encode.json", configuration.to_plain(config))
        storage.write_json(out / "versions.json", versions())
        with ThreadPoolExecutor(THREADS) as pool:
            done = pool.map(partial(is_done, out, retry_failed=config.retry_failed), plans)
        todo = [plan for plan, ready in zip(plans, done, strict=True) if not ready]
        if todo:
            work = partial(EncodeShard, out, config)
            items = ({"plan": pickle.dumps(plan)} for plan in todo)
            far = config.decode_on == "cluster"
            answers = stream(engine, work, items, on_gpu=gpu, leaves_cores=far)
            _follow(out, answers, todo, len(plans), config.max_failed_share)
        provenance = {
            "manifest_digest": manifest.digest(),
            "config": configuration.to_plain(config),
        }
        write_dataset(out, specs, plans, provenance, config.max_failed_share)
    return open_dataset(out)


def _follow(
    out: Path,
    answers: Generator[dict[str, Any], None, None],
    todo: list[ShardPlan],
    num_plans: int,
    max_failed_share: float,
) -> None:
    """Until all shards to do are there; stops early where too many clips fail."""
    total, seen, failed = sum(len(plan.clips) for plan in todo), 0, 0
    with progress("encode", num_plans, num_plans - len(todo)) as advance, closing(answers):
        for answer in answers:
            advance(answer["shard"])
            seen, failed = seen + answer["seen"], failed + answer["failed"]
            if answer["failed"] and seen < total:  # In the end all shards count, not these alone.
                (why,) = answer["why"]
                require_decoded(out, failed, seen, total, max_failed_share, why)
