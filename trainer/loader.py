"""The batches of training: what the shards hold, with the noise, times and dropped captions that
are keyed by the place in the order, never by the process.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from avdata.errors import CorruptShard
from avdata.pipeline.shards.dataset import SampleEntry
from avdata.trainer.batch import Batch
from avdata.trainer.config import TrainConfig
from avdata.trainer.data.buffers import Ring
from avdata.trainer.data.feed import Extra, Feed, HostBatch
from avdata.trainer.data.layout import laid_out, places_of
from avdata.trainer.data.located import locate_members
from avdata.trainer.data.plan import Plan
from avdata.trainer.data.quarantine import Quarantine
from avdata.trainer.data.sample_reader import SampleReader
from avdata.trainer.data.source import Order, Source, open_source, order_of
from avdata.trainer.data.state import State, state_at, step_of
from avdata.trainer.flow import Clean
from avdata.trainer.group import Group
from avdata.trainer.randomness import AUDIO, TIME, VIDEO, generator, noise_into

STREAMS = {"video": VIDEO, "audio": AUDIO}


@dataclass(frozen=True, slots=True)
class Draws:
    """How the random parts of a seat are drawn."""

    seed: int
    caption_dropout: float

    def time_and_caption(self, epoch: int, position: int) -> tuple[float, bool]:
        """The seat's uniform number, and whether it keeps its captions."""
        u, dropout = generator(TIME, self.seed, epoch, position).random(2)
        return float(u), bool(dropout >= self.caption_dropout)

    def fill(self, batch: HostBatch, seat: int) -> None:
        """Noise of all modalities and the time."""
        place = (batch.plan.epoch, batch.plan.first_position + int(batch.seats[seat]))
        for role, stream in STREAMS.items():
            if role in batch.extra:
                noise_into(batch.extra[role][seat].numpy(), stream, self.seed, *place)
        u, captioned = self.time_and_caption(*place)
        batch.extra["u"][seat] = u
        if not captioned:
            # Without a caption all of it is zero: the unconditional branch of guidance.
            for role, lengths in batch.lengths.items():
                lengths[seat] = 0
                batch.arrays[role][seat] = 0


def noise_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Of what `Draws` fills in, from the shapes of what is read."""
    found = {role: shapes[role] for role in STREAMS if role in shapes}
    return found | {"u": (shapes["video"][0],)}


@dataclass(frozen=True, slots=True)
class HeldOutSample:
    """One sample as the model takes it."""

    video: Clean
    audio: Clean | None
    damaged: bool
    """All zeros: it could not be read and counts for nothing."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Single samples as the model takes them, for validation."""

    samples: SampleReader
    roles: Sequence[str]
    longest: Mapping[str, int]
    quarantine: Quarantine

    def read_or_blank(self, entry: SampleEntry, noise_key: Sequence[int]) -> HeldOutSample:
        """As `read`; a damaged one is listed and comes as zeros, so that all processes can make
        the same calls of the model.
        """
        try:
            return HeldOutSample(*self.read(entry, noise_key), damaged=False)
        except CorruptShard as error:
            self.quarantine.add_held_out(entry.key, entry.tar, error)
            return HeldOutSample(*self._read(entry, noise_key, blank=True), damaged=True)

    def read(self, entry: SampleEntry, noise_key: Sequence[int]) -> tuple[Clean, Clean | None]:
        """Video and, where it is trained on, audio; their noise is keyed by `noise_key`.

        CorruptShard when the bytes are not those that were written.
        """
        return self._read(entry, noise_key, blank=False)

    def _read(
        self, entry: SampleEntry, noise_key: Sequence[int], *, blank: bool
    ) -> tuple[Clean, Clean | None]:
        sample = locate_members(entry.key, entry.tar, entry.members, self.roles)
        arrays = {}
        for part in sample.parts:
            shape = part.shape
            if part.role in self.longest:
                shape = (self.longest[part.role], *shape[1:])
            arrays[part.role] = np.zeros((1, *shape), np.float16)
        laid = laid_out(sample, places_of(arrays), 0)
        if not blank:
            self.samples.read(laid)
        parts = []
        for role in self.roles[::2]:
            drawn = np.empty(arrays[role].shape[1:], np.float32)
            noise_into(drawn, STREAMS[role], *noise_key)
            text = torch.from_numpy(arrays[f"{role}_text"][0])
            mask = torch.arange(len(text)) < (0 if blank else laid.lengths[f"{role}_text"])
            latents = torch.from_numpy(arrays[role][0])
            parts.append(Clean(latents, torch.from_numpy(drawn), text, mask))
        return parts[0], parts[1] if len(parts) == 2 else None


@dataclass(frozen=True, slots=True)
class Loader:
    """The batches of one rank."""

    source: Source
    order: Order
    feed: Feed

    @property
    def plan(self) -> Plan:
        """Which samples make which step."""
        return self.order.plan

    @property
    def reader(self) -> Reader:
        """For single samples."""
        feed = self.feed
        return Reader(self.source.reader, feed.roles, feed.longest, feed.quarantine)

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """Those of steps `first` to `last` - 1, in order."""
        for host in self.feed.batches(first, last):
            yield _as_batch(host)

    def keys(self, step: int) -> list[str]:
        """Of the global batch, repeats included."""
        return self.source.table.keys(self.plan.batch(step).rows)

    def held_out(self, count: int) -> list[SampleEntry]:
        """Of the validation split; see `Source.entries`."""
        return self.source.entries("val", count)

    def state(self, step: int) -> State:
        """After so many steps; the same on every rank."""
        return state_at(self.plan, self.order.identity, step)

    def step_of(self, state: State) -> int:
        """UsageError, with all that differs, when it is the state of another order."""
        return step_of(state, self.order.identity)

    def metrics(self) -> dict[str, float]:
        """See `Counters.snapshot`; since the loader was opened."""
        return self.source.counters.snapshot()


def open_loader(
    shards: str | Path, config: TrainConfig, group: Group, quarantine: Path | None = None
) -> Loader:
    """UsageError where there is nothing to train on; damaged samples are listed in `quarantine`."""
    # A twin that reads the audio caption is given audio; the model takes its caption alone.
    heard = config.mode == "t2av" or config.model.audio_caption
    roles = ("video", "video_text") + (("audio", "audio_text") if heard else ())
    longest = {"video_text": config.model.max_video_text}
    if heard:
        longest["audio_text"] = config.model.max_audio_text
    read = config.data.read
    source = open_source(shards, read)
    order = order_of(source, config.data.mix, config.batch_size, config.seed)
    draws = Draws(config.seed, config.caption_dropout)
    feed = Feed(
        table=source.table,
        plan=order.plan,
        reader=source.reader,
        roles=roles,
        longest=longest,
        rank=group.rank,
        world=group.world,
        read=read,
        counters=source.counters,
        quarantine=Quarantine(read.most_bad(order.plan.num_samples), quarantine),
        ring=Ring(read.ahead + 2, pinned=group.device.type == "cuda"),
        extra=Extra(noise_shapes, draws.fill),
    )
    return Loader(source, order, feed)


def padded(text: Tensor, longest: int, *, captioned: bool) -> tuple[Tensor, Tensor]:
    """(longest, d) embeddings, cut or padded with zeros, and the mask of real tokens.

    Without a caption all of both is zero: the unconditional branch of guidance.
    """
    count = min(len(text), longest) if captioned else 0
    out = torch.zeros(longest, text.shape[1])
    out[:count] = text[:count]
    return out, torch.arange(longest) < count


def _as_batch(host: HostBatch) -> Batch:
    parts = []
    for role in STREAMS:
        if role in host.arrays:
            text = host.arrays[f"{role}_text"]
            mask = torch.arange(text.shape[1]) < host.lengths[f"{role}_text"][:, None]
            parts.append(Clean(host.arrays[role], host.extra[role], text, mask))
    return Batch(
        share=host.weights / host.plan.num_real,
        u=host.extra["u"],
        video=parts[0],
        audio=parts[1] if len(parts) == 2 else None,
        keys=host.keys,
    )
