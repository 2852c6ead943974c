"""`avdata encode`: the kept clips of a manifest to shards, a planned shard the unit of work."""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from avdata import config as configuration
from avdata import storage
from avdata.encoders.choice import EncodersConfig
from avdata.encoders.device import usable
from avdata.encoders.spec import ClipShape, Specs
from avdata.errors import UsageError
from avdata.jobs.engine import Engine, stream
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.measure.source import IngestConfig
from avdata.pipeline.selection import require_kept
from avdata.pipeline.shards.ahead import ahead
from avdata.pipeline.shards.dataset import THREADS, Dataset, open_dataset
from avdata.pipeline.shards.encode import VERSION, clip_media, encode_clips
from avdata.pipeline.shards.plan import PlanSettings, ShardPlan, plan_shards
from avdata.pipeline.shards.quality import chosen
from avdata.pipeline.shards.writer import is_done, write_dataset, write_shard
from avdata.pipeline.sources.copies import LocalCopies, remove_copies_of_the_dead
from avdata.progress import progress
from avdata.versions import versions


@dataclass(frozen=True, slots=True)
class EncodeConfig:
    """Pixels of the clips and how they are dealt into shards."""

    height: int = 192
    width: int = 320
    device: str = "cpu"
    encoders: EncodersConfig = field(default_factory=EncodersConfig)
    """One of each role by its `kind`: `encoders.video.kind=wan encoders.video.path=FOLDER`."""
    plan: PlanSettings = field(default_factory=PlanSettings)
    max_copies_gib: float = 16.0
    """Local copies of remote sources that each worker keeps, and the largest it fetches."""
    batch_size: int | None = None
    """Clips encoded at once; None is 1 on a CPU, 4 on a GPU."""
    decode_ahead: int = 8
    """Clips that each worker decodes, or has decoded, while others are encoded."""
    round_trips: int = 2
    """Samples of each shard that are decoded back; what that gave is in the index."""
    decode_threads: int | None = None
    """None is 1 on a CPU, which encoding needs itself; on a GPU one a clip ahead, or one a core."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "decode_threads"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be positive, not {value}")
        for name in ("decode_ahead", "round_trips"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, but is {getattr(self, name)}")
        if not self.max_copies_gib > 0:
            raise ValueError(f"max_copies_gib must be positive, not {self.max_copies_gib}")


@dataclass
class EncodeShard:
    """One planned shard. The plan is a pure function of the manifest, so each process makes its own
    and only the shard's name travels.
    """

    root: Path
    out: Path
    config: EncodeConfig

    def __post_init__(self) -> None:
        torch.set_num_threads(1)  # Shards are encoded in parallel.
        device = usable(self.config.device)
        self.batch_size, self.threads = _pace(self.config, device)
        self.encoders = self.config.encoders.open(device)
        self.shape, plans = planned(self.root, self.config, self.encoders.specs)
        self.plans = {plan.name: plan for plan in plans}
        remove_copies_of_the_dead()
        self.copies = LocalCopies(self.config.max_copies_gib)

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        plan = self.plans[item["shard"]]
        read = partial(clip_media, shape=self.shape, copies=self.copies)
        with ahead(read, plan.clips, self.config.decode_ahead, self.threads) as media:
            ids = (clip.clip_id for clip in plan.clips)
            checked = chosen(ids, self.config.round_trips)
            samples = encode_clips(plan.clips, media, self.encoders, self.batch_size, checked)
            index = write_shard(self.out, plan, samples)
        return {"shard": plan.name, "samples": len(index.samples)}


def _pace(config: EncodeConfig, device: torch.device) -> tuple[int, int]:
    """Clips a batch, and threads that decode."""
    most = min(config.decode_ahead, os.cpu_count() or 1)
    batch, threads = (1, 1) if device.type == "cpu" else (4, most)
    return config.batch_size or batch, config.decode_threads or max(1, threads)


def planned(root: Path, config: EncodeConfig, specs: Specs) -> tuple[ClipShape, list[ShardPlan]]:
    """The shape of the clips and the shards of a manifest."""
    settings = Manifest(root).settings()
    ingested = configuration.from_plain(IngestConfig, settings, str(root / "clips.parquet"))
    try:
        shape = ClipShape(
            num_frames=ingested.num_frames,
            fps=ingested.fps,
            height=config.height,
            width=config.width,
            sample_rate=specs.audio.sample_rate,
        )
        specs.video.latent_shape(shape.num_frames, shape.height, shape.width)
    except ValueError as error:
        raise UsageError(f"cannot encode {config.height}x{config.width}: {error}") from error
    encoding = [VERSION, dataclasses.asdict(specs), config.round_trips]
    return shape, plan_shards(require_kept(Manifest(root)), shape, config.plan, encoding)


def encode(root: Path, out: Path, config: EncodeConfig, engine: Engine | None = None) -> Dataset:
    """Encodes the shards that are not there yet and commits the dataset."""
    manifest = Manifest(root)
    storage.require_ours(out, ("encode.json", "dataset.json"), "shards")
    usable(config.device)
    kept = require_kept(manifest)
    if any(clip.captions is None for clip in kept):
        raise UsageError(f"{root}: clips without captions; run `avdata caption {root}` first")
    specs = config.encoders.specs()
    shape, plans = planned(root, config, specs)
    storage.write_json(out / "encode.json", configuration.to_plain(config))
    storage.write_json(out / "versions.json", versions())
    with ThreadPoolExecutor(THREADS) as pool:
        done = pool.map(partial(is_done, out), plans)
    todo = [{"shard": plan.name} for plan, ready in zip(plans, done, strict=True) if not ready]
    if todo:
        answers = stream(engine or Engine(), lambda: EncodeShard(root, out, config), todo)
        with progress("encode", len(plans), len(plans) - len(todo)) as advance:
            for answer in answers:
                advance(answer["shard"])
    provenance = {"manifest_digest": manifest.digest(), "config": configuration.to_plain(config)}
    write_dataset(out, specs, shape, plans, provenance)
    return open_dataset(out)
