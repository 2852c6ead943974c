"""Loaders over small shards of two buckets, and equality of what they give."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from avdata.encoders.spec import ClipShape
from avdata.pipeline.shards.dataset import Dataset
from avdata.pipeline.shards.retry import Attempts
from avdata.pipeline.shards.store import Store
from avdata.trainer.batch import Batch
from avdata.trainer.config import TrainConfig
from avdata.trainer.data.config import DataConfig, MixConfig, ReadConfig
from avdata.trainer.data.sample_reader import SampleReader
from avdata.trainer.flow import Clean
from avdata.trainer.group import Group
from avdata.trainer.loader import Loader, open_loader
from tests.trainer.shards import write_buckets
from tests.trainer.tiny import CLIP, CONFIG

LONG = ClipShape(num_frames=25, fps=16, height=64, width=32)
STRICT = ReadConfig(threads=2, max_bad_samples=0)


def write(root: Path) -> Dataset:
    """Two buckets, uneven."""
    return write_buckets(root, [(7, CLIP), (4, LONG)])


def a_loader(
    shards: str | Path,
    rank: int = 0,
    world: int = 1,
    read: ReadConfig = STRICT,
    mix: MixConfig | None = None,
    quarantine: Path | None = None,
    **changes: Any,
) -> Loader:
    settings: dict[str, Any] = {
        "model": CONFIG,
        "batch_size": 4,
        "seed": 5,
        "caption_dropout": 0.3,
        "data": DataConfig(mix=mix or MixConfig(), read=read),
        **changes,
    }
    group = Group(rank, world, torch.device("cpu"))
    return open_loader(shards, TrainConfig(**settings), group, quarantine)


def epoch(loader: Loader) -> range:
    """Steps of the first one."""
    return range(loader.plan.steps_before(1))


def over(loader: Loader, store: Store) -> Loader:
    """The same on another store."""
    counters = loader.source.counters
    attempts = Attempts(loader.feed.read.attempts, lambda: counters.add("retries"))
    reader = SampleReader(store, attempts, counters)
    return dataclasses.replace(loader, feed=dataclasses.replace(loader.feed, reader=reader))


def tensors(part: Clean | None) -> list[torch.Tensor]:
    return [] if part is None else [part.latents, part.noise, part.text, part.text_mask]


def everything(batch: Batch) -> list[torch.Tensor]:
    return [batch.share, batch.u, *tensors(batch.video), *tensors(batch.audio)]


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def same(one: Batch, other: Batch) -> bool:
    return one.keys == other.keys and equal(everything(one), everything(other))


def flip(dataset: Dataset, member: str, most: int | None = None, split: str = "train") -> list[str]:
    """One bit of that member of the first samples of a split; their keys."""
    entries = dataset.samples(split)[:most]
    for entry in entries:
        path = dataset.root / entry.tar
        data = bytearray(path.read_bytes())
        data[entry.members[member].offset + entry.members[member].length - 1] ^= 1
        path.write_bytes(data)
    return [entry.key for entry in entries]
