"""The loader as torch's `IterableDataset`, for trainers of other people.

    stream = ShardStream("data/shards", batch_size=16, rank=rank, world=world)
    for batch in DataLoader(stream, batch_size=None):   # one epoch
        ...
    saved = stream.state_dict()                         # the same on every rank

Batches are whole already: `batch_size=None`, and no workers, since it reads with threads; others
are refused. With torchdata's StatefulDataLoader its state is this one, too.
"""

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info
from torch.utils.data._utils.collate import default_collate_fn_map

from avdata.errors import UsageError
from avdata.trainer.data.buffers import Ring
from avdata.trainer.data.config import DataConfig
from avdata.trainer.data.feed import Feed, HostBatch
from avdata.trainer.data.quarantine import Quarantine
from avdata.trainer.data.source import longest_texts, open_source, order_of
from avdata.trainer.data.state import State, state_at, step_of

ROLES = ("video", "audio", "video_text", "audio_text")
LEAST = {"batch_size": 1, "rank": 0, "world": 1, "seed": 0}


class Batch(dict[str, Any]):
    """A dictionary that DataLoader knows to be a batch, and makes no batches of."""


def _collated(_batches: list[Batch], **_: object) -> Batch:
    raise UsageError("ShardStream gives whole batches; give DataLoader batch_size=None")


default_collate_fn_map[Batch] = _collated


@dataclass(eq=False)
class ShardStream(IterableDataset[Batch]):
    """One rank's share of one epoch an iteration, from where the last one ended.

    A batch is a dictionary: float16 tensors `video` (b c t h w), `audio` (b c l), `video_text`
    (b n d) and `audio_text` (b k e) with zeros after `video_text_length` and `audio_text_length`
    (b); `weight` (b), 0 for repeats and damaged samples; `share` (b), the weight over that of the
    global batch, times `world`: DDP's mean over the ranks of `(loss * share).sum()` is the mean
    over the samples, for any number of ranks (damaged samples count as losses of 0); `positions`
    (b), the seats' places in the epoch, which with `seed` and `epoch` key random numbers (see
    `trainer.randomness.generator`); `keys`, `bucket`, `epoch`, `step`.

    A batch's memory is used again once nothing refers to its tensors, so it is pageable: a copy to
    a GPU, also one with `non_blocking=True`, has read it when it returns. Whoever wants copies
    beside other work gives DataLoader `pin_memory=True`, whose memory is torch's own.
    """

    shards: str | Path
    batch_size: int
    """Global, over all ranks."""
    rank: int = 0
    world: int = 1
    seed: int = 0
    config: DataConfig = field(default_factory=DataConfig)
    roles: Sequence[str] = ROLES

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            setattr(self, name, _whole(name, getattr(self, name), least))
        if not self.roles or sorted(set(self.roles) & set(ROLES)) != sorted(self.roles):
            listed = ", ".join(ROLES)
            raise UsageError(f"roles = {self.roles}: give some of {listed}, each once")
        config, roles = self.config, self.roles
        self.source = open_source(self.shards, config.read)
        self.order = order_of(self.source, config.mix, self.batch_size, self.seed)
        self.step = 0
        self._newest: object = None
        self.feed = Feed(
            table=self.source.table,
            plan=self.order.plan,
            reader=self.source.reader,
            roles=roles,
            longest=longest_texts(self.source, roles),
            rank=self.rank,
            world=self.world,
            read=config.read,
            counters=self.source.counters,
            quarantine=Quarantine(config.read.most_bad(self.order.plan.num_samples)),
            # Never pinned: a `non_blocking` copy would still read memory that is used again.
            ring=Ring(config.read.ahead + 2),
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, in this process or another, opens the shards anew and goes on from here."""
        given = [getattr(self, one.name) for one in fields(self)]
        return _copied, (given, self.step)

    def __len__(self) -> int:
        """Batches of the epoch that it is in."""
        plan = self.order.plan
        epoch = plan.epoch_of(self.step)
        return plan.steps_before(epoch + 1) - plan.steps_before(epoch)

    def __iter__(self) -> Iterator[Batch]:
        """To the end of the epoch; UsageError in a worker process.

        The state is that of the iterator begun last, and of none after `load_state_dict`.
        """
        if get_worker_info() is not None:
            raise UsageError("ShardStream reads with threads; give DataLoader num_workers=0")
        plan = self.order.plan
        last = plan.steps_before(plan.epoch_of(self.step) + 1)
        self._newest = mine = object()
        for host in self.feed.batches(self.step, last):
            # Counted before it is given out: a state taken while it is used goes on after it.
            if self._newest is mine:
                self.step = host.plan.step + 1
            yield _as_plain(host, self.world)

    def state_dict(self) -> State:
        """After the batches given out so far."""
        return state_at(self.order.plan, self.order.identity, self.step)

    def load_state_dict(self, state: State) -> None:
        """UsageError, with all that differs, when it is the state of another order."""
        self.step = step_of(state, self.order.identity)
        self._newest = None


def _copied(given: list[Any], step: int) -> ShardStream:
    stream = ShardStream(*given)
    stream.step = step
    return stream


def _whole(name: str, value: object, least: int) -> int:
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if number < least:
        raise UsageError(f"{name} = {value!r} is no whole number from {least} on")
    return number


def _as_plain(host: HostBatch, world: int) -> Batch:
    lengths: Mapping[str, Any] = {f"{role}_length": one for role, one in host.lengths.items()}
    return Batch(
        **host.arrays,
        **lengths,
        weight=host.weights,
        share=torch.from_numpy(host.weights.numpy() * np.float32(world / host.plan.num_real)),
        positions=torch.from_numpy(host.plan.first_position + host.seats),
        keys=host.keys,
        bucket=host.plan.bucket,
        epoch=host.plan.epoch,
        step=host.plan.step,
    )
