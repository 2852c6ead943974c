"""From clips of the manifest to training samples: read by timestamp, encode, gather the facts."""

import os
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from avdata.encoders.choice import Encoders
from avdata.encoders.spec import ClipShape
from avdata.errors import MediaError, RunError, UsageError
from avdata.pipeline.media.clip import ClipMedia, read_clip
from avdata.pipeline.record import Clip
from avdata.pipeline.shards.facts import facts, subsets
from avdata.pipeline.shards.quality import with_round_trip
from avdata.pipeline.shards.sample import EncodedSample
from avdata.pipeline.sources.copies import LocalCopies
from avdata.pipeline.sources.files import exists, is_remote

VERSION = 2
"""Raise when reading or scaling a clip changes; every shard made before is then made again."""
FETCHING = threading.Lock()
"""Held while a source is fetched, and so while copies of others are removed to make room."""


def encode_clip(
    clip: Clip, shape: ClipShape, encoders: Encoders, copies: LocalCopies
) -> EncodedSample:
    """RunError when the source no longer gives the clip; UsageError when it has no captions."""
    return next(encode_clips([clip], [clip_media(clip, shape, copies)], encoders))


def encode_clips(
    clips: Iterable[Clip],
    media: Iterable[ClipMedia],
    encoders: Encoders,
    batch_size: int = 1,
    checked: Collection[str] = (),
) -> Iterator[EncodedSample]:
    """Clips of one shape in their order, `batch_size` at once; `media` are theirs. Those whose id
    is in `checked` are decoded back, and what that gave is among their facts.

    UsageError when a clip has no captions.
    """
    pairs = zip(clips, media, strict=True)
    while batch := list(islice(pairs, batch_size)):
        for (clip, own), sample in zip(batch, _encoded(batch, encoders), strict=True):
            yield with_round_trip(encoders, own, sample) if clip.clip_id in checked else sample


def _encoded(
    batch: Sequence[tuple[Clip, ClipMedia]], encoders: Encoders
) -> Iterator[EncodedSample]:
    clips = [clip for clip, _ in batch]
    captions = [clip.captions for clip in clips if clip.captions is not None]
    if len(captions) < len(clips):
        clip = next(clip for clip in clips if clip.captions is None)
        raise UsageError(f"clip {clip.clip_id} has no captions; run `avdata caption` first")
    with torch.inference_mode():
        frames = torch.stack([torch.from_numpy(media.frames) for _, media in batch])
        samples = torch.stack([torch.from_numpy(media.samples) for _, media in batch])
        video = encoders.video.encode(frames)
        audio = encoders.audio.encode(samples)
        video_text = encoders.video_text.encode([one.video for one in captions])
        audio_text = encoders.audio_text.encode([one.audio for one in captions])
    for k, clip in enumerate(clips):
        yield EncodedSample(
            key=clip.clip_id,
            source=clip.source.digest,
            subsets=subsets(clip),
            video=_numpy(video[k]),
            audio=_numpy(audio[k]),
            video_text=_numpy(video_text[k]),
            audio_text=_numpy(audio_text[k]),
            meta=facts(clip),
        )


def clip_media(clip: Clip, shape: ClipShape, copies: LocalCopies) -> ClipMedia:
    """Read from the first of the clip's sources that is there; RunError when none gives it."""
    uri = next(filter(exists, clip.source.uris), None)
    if uri is None:
        raise RunError(f"{clip.source.uri}: gone since ingest; run `avdata ingest` again")
    try:
        with held(uri, clip.source.digest, copies) as path:
            return read_clip(path, clip.start_s, shape)
    except MediaError as error:
        raise RunError(
            f"{uri}: changed since ingest ({error}); run `avdata ingest` again"
        ) from error


@contextmanager
def held(uri: str, digest: str, copies: LocalCopies) -> Iterator[Path]:
    """A file that stays while it is read, whatever other threads fetch meanwhile."""
    if not is_remote(uri):
        yield copies.path(uri, digest)
        return
    with FETCHING:
        path = copies.path(uri, digest)
        own = path.with_name(f"{threading.get_ident()}-{path.name}")
        os.link(path, own)
    try:
        yield own
    finally:
        own.unlink()


def _numpy(tensor: torch.Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    array: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = tensor.float().cpu().numpy()
    return array
