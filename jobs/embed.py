"""Clips to embeddings, by workers, a GPU each where there are any: a batch of clips the unit of
work and of commit. Clips are decoded in child processes ahead of the models.
"""

import pickle
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Float32
from numpy import ndarray

from avdata.encoders.device import usable, within_memory
from avdata.encoders.embedder import AudioText, ImageText
from avdata.encoders.spec import ClipShape
from avdata.errors import MediaError
from avdata.jobs.ask import ingested
from avdata.jobs.device import on_gpu
from avdata.jobs.engine import Engine, stream
from avdata.jobs.semantics_config import LONGER_SIDE, SAMPLE_RATE, SemanticsConfig
from avdata.pipeline.embeddings import NO_SOUND, Embeddings
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.measure.source import IngestConfig
from avdata.pipeline.media.clip import ClipMedia
from avdata.pipeline.media.clip_file import own_shape
from avdata.pipeline.record import Clip
from avdata.pipeline.semantics import Medium
from avdata.pipeline.shards.ahead import ahead
from avdata.pipeline.shards.decoders import Decoders
from avdata.pipeline.shards.failures import require_decoded, worded
from avdata.pipeline.sources.clips import clip_media
from avdata.pipeline.sources.copies import LocalCopies, remove_copies_of_the_dead
from avdata.progress import progress

BATCH = 32
"""Clips of one item of work and of one file."""
SMALLER = "set batch_size to less than {}, fewer frames, or {}.dtype=bfloat16"
T = TypeVar("T")


@dataclass
class EmbedClips:
    """One batch of clips: read once, embedded, committed. Each process loads the models once."""

    config: SemanticsConfig
    ingested: IngestConfig
    stores: dict[Medium, Embeddings]
    picture: ImageText | None = field(init=False, default=None)
    sound: AudioText | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        remove_copies_of_the_dead()
        device = usable(self.config.device)
        self.copies = LocalCopies(self.config.max_copies_gib)
        self.decoders = Decoders(self.config.limits)
        self.batch_size = self.config.batch_size or (1 if device.type == "cpu" else 8)
        with within_memory("set picture.dtype=bfloat16 and sound.dtype=bfloat16"):
            if "picture" in self.stores and self.config.picture is not None:
                self.picture = self.config.picture.open(device)
            if "sound" in self.stores and self.config.sound is not None:
                self.sound = self.config.sound.open(device)

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        clips: list[Clip] = pickle.loads(item["clips"])
        seen, heard = dict[str, ndarray](), dict[str, ndarray]()
        failed: dict[str, str] = {}
        why: list[str] = []
        with ahead(self._read, clips, self.config.threads, self.config.threads) as media:
            for clip, own in zip(clips, media, strict=True):
                if isinstance(own, MediaError):
                    failed[clip.clip_id] = own.reason
                    why.append(worded(own.stage, own.reason, own.detail))
                    continue
                seen[clip.clip_id] = own.evenly(self.config.frames)
                if clip.audio is not None:
                    heard[clip.clip_id] = own.samples.mean(axis=0)
        for medium, store in self.stores.items():
            given = seen if medium == "picture" else heard
            none = {clip_id: NO_SOUND for clip_id in seen if clip_id not in given}
            embed = self._pictures if medium == "picture" else self._sounds
            with within_memory(SMALLER.format(self.batch_size, medium)):
                rows = [embed(some) for some in _batches(list(given.values()), self.batch_size)]
            found = np.concatenate([np.zeros((0, store.width), np.float32), *rows])
            store.write(list(given), found, {**failed, **none})
        return {"seen": len(clips), "failed": len(failed), "why": why[:1]}

    def _read(self, clip: Clip) -> ClipMedia | MediaError:
        whole = ClipShape(self.ingested.num_frames, self.ingested.fps, sample_rate=SAMPLE_RATE)
        shown = clip.media.height, clip.media.width
        shape = own_shape(shown, whole, LONGER_SIDE)
        try:
            return clip_media(clip, shape, self.copies, read=self.decoders.read)
        except MediaError as error:
            return error

    def _pictures(self, clips: list[ndarray]) -> Float32[ndarray, "b d"]:
        """The mean of each clip's frames."""
        assert self.picture is not None
        sizes = [len(frames) for frames in clips]
        found = self.picture.images([torch.from_numpy(frame) for one in clips for frame in one])
        return _unit(torch.stack([one.mean(dim=0) for one in found.split(sizes)]))

    def _sounds(self, clips: list[ndarray]) -> Float32[ndarray, "b d"]:
        assert self.sound is not None
        return _unit(self.sound.sounds(torch.from_numpy(np.stack(clips))))


def embed(
    root: Path,
    clips: list[Clip],
    config: SemanticsConfig,
    stores: dict[Medium, Embeddings],
    engine: Engine,
) -> None:
    """Embeds the clips that have neither an embedding nor a lasting reason for none.

    RunError when more than `max_failed_share` of them cannot be decoded.
    """
    wanted, again = pa.array([clip.clip_id for clip in clips], pa.string()), config.retry_failed
    lacking = {
        medium: wanted.filter(pc.invert(pc.is_in(wanted, value_set=store.known(again))))
        for medium, store in stores.items()
    }
    missing = {one for ids in lacking.values() for one in ids.to_pylist()}
    todo = sorted((one for one in clips if one.clip_id in missing), key=lambda one: one.clip_id)
    if todo:
        short = {medium: store for medium, store in stores.items() if len(lacking[medium])}
        _embed(root, todo, config, short, engine, len(clips))
    for store in stores.values():
        for why in (failed := store.failures(wanted))[:1]:
            share = config.max_failed_share
            require_decoded(root, len(failed), len(clips), len(clips), share, why)


def _embed(
    root: Path,
    todo: list[Clip],
    config: SemanticsConfig,
    stores: dict[Medium, Embeddings],
    engine: Engine,
    total: int,
) -> None:
    items = ({"clips": pickle.dumps(some)} for some in _batches(todo, BATCH))
    work = partial(EmbedClips, config, ingested(Manifest(root)), stores)
    answers = stream(engine, work, items, on_gpu=on_gpu(config.device, engine))
    seen, failed = total - len(todo), 0
    with progress("embed", len(todo)) as advance, closing(answers):
        for answer in answers:
            advance(by=answer["seen"])
            seen, failed = seen + answer["seen"], failed + answer["failed"]
            for why in answer["why"]:
                require_decoded(root, failed, seen, total, config.max_failed_share, why)


def _batches(items: list[T], size: int) -> Iterator[list[T]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


def _unit(found: torch.Tensor) -> Float32[ndarray, "b d"]:
    unit: Float32[ndarray, "b d"] = torch.nn.functional.normalize(found, dim=1).cpu().numpy()
    return unit
