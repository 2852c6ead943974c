"""Reads samples by range and keeps some batches ahead of the model, with threads only.

Readers wait for the disk and hash, which needs no interpreter lock, so worker
processes would add copies and nothing else.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from avdata.pipeline.shards.dataset import Dataset, SampleEntry, read_members
from avdata.pipeline.shards.sample import read_npy
from avdata.trainer.batch import Batch, Seat, stack
from avdata.trainer.flow import Clean
from avdata.trainer.model.config import Mode, ModelConfig
from avdata.trainer.plan import Place, Plan, slice_of
from avdata.trainer.randomness import AUDIO, TIME, VIDEO, generator, noise


@dataclass(frozen=True, slots=True)
class Reader:
    """Turns entries of a dataset into what the model takes."""

    dataset: Dataset
    model: ModelConfig
    mode: Mode

    def read(
        self, entry: SampleEntry, noise_key: Sequence[int], *, captioned: bool = True
    ) -> tuple[Clean, Clean | None]:
        """Video and, in mode t2av, audio; their noise is keyed by `noise_key`.

        CorruptShard when the bytes are not those that were written.
        """
        roles = ("video", "video_text") + (("audio", "audio_text") if self.mode == "t2av" else ())
        data = read_members(self.dataset.root, entry, [f"{role}.npy" for role in roles])
        found = {role: torch.from_numpy(read_npy(data[f"{role}.npy"])).float() for role in roles}
        longest = {"video": self.model.max_video_text, "audio": self.model.max_audio_text}
        streams = {"video": VIDEO, "audio": AUDIO}
        parts = []
        for role in ("video", "audio")[: len(roles) // 2]:
            latents = found[role]
            text, mask = padded(found[f"{role}_text"], longest[role], captioned=captioned)
            drawn = noise(streams[role], tuple(latents.shape), *noise_key)
            parts.append(Clean(latents, drawn, text, mask))
        return parts[0], parts[1] if len(parts) == 2 else None


@dataclass(frozen=True, slots=True)
class Loader:
    """The batches of one rank."""

    reader: Reader
    entries: Sequence[SampleEntry]
    plan: Plan
    seed: int
    caption_dropout: float
    rank: int
    world: int
    threads: int = 4
    read_ahead: int = 2
    """Batches read before they are asked for."""

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """Those of steps `first` to `last` - 1, in order."""
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="reader")
        ahead: deque[list[Future[Seat]]] = deque()
        try:
            for step in range(first, last):
                places = slice_of(self.plan.batch(step), self.rank, self.world)
                ahead.append([pool.submit(self._seat, place) for place in places])
                if len(ahead) > self.read_ahead:
                    yield stack([one.result() for one in ahead.popleft()])
            while ahead:
                yield stack([one.result() for one in ahead.popleft()])
        finally:
            pool.shutdown(cancel_futures=True)

    def _seat(self, place: Place) -> Seat:
        key = (self.seed, place.epoch, place.position)
        u, dropout = generator(TIME, *key).random(2)
        captioned = bool(dropout >= self.caption_dropout)
        entry = self.entries[place.index]
        video, audio = self.reader.read(entry, key, captioned=captioned)
        return Seat(place.share, float(u), video, audio)


def padded(text: Tensor, longest: int, *, captioned: bool) -> tuple[Tensor, Tensor]:
    """(longest, d) embeddings, cut or padded with zeros, and the mask of real tokens.

    Without a caption all of both is zero: the unconditional branch of guidance.
    """
    count = min(len(text), longest) if captioned else 0
    out = torch.zeros(longest, text.shape[1])
    out[:count] = text[:count]
    return out, torch.arange(longest) < count
