"""From clips of the manifest and their media to training samples: encode, gather the facts."""

from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np
import torch

from avdata.encoders.choice import Encoders
from avdata.encoders.spec import ClipShape
from avdata.errors import MediaError, UsageError
from avdata.pipeline.media.clip import ClipMedia
from avdata.pipeline.record import Captions, Clip
from avdata.pipeline.shards.facts import facts, subsets
from avdata.pipeline.shards.index import FailedClip
from avdata.pipeline.shards.quality import with_round_trip
from avdata.pipeline.shards.sample import EncodedSample

VERSION = 4
"""Raise when reading or scaling a clip changes; every shard made before is then made again."""


def encode_clips(
    clips: Iterable[Clip],
    media: Iterable[ClipMedia | MediaError],
    shape: ClipShape,
    encoders: Encoders,
    batch_size: int = 1,
    checked: Collection[str] = (),
) -> Iterator[EncodedSample | FailedClip]:
    """Clips of one shape in their order, `batch_size` at once; `media` are theirs, or why there
    are none. Those whose id is in `checked` are decoded back, and what that gave is among their
    facts.

    UsageError when a clip has no captions.
    """
    batch: list[tuple[Clip, ClipMedia]] = []
    for clip, own in zip(clips, media, strict=True):
        if isinstance(own, MediaError):
            yield FailedClip(clip.clip_id, own.stage, own.reason, own.detail)
            continue
        batch.append((clip, own))
        if len(batch) == batch_size:
            yield from _encoded(batch, shape, encoders, checked)
            batch = []
    if batch:
        yield from _encoded(batch, shape, encoders, checked)


def _encoded(
    batch: Sequence[tuple[Clip, ClipMedia]],
    shape: ClipShape,
    encoders: Encoders,
    checked: Collection[str],
) -> Iterator[EncodedSample]:
    captions = [_captions(clip) for clip, _ in batch]
    with torch.inference_mode():
        frames = torch.stack([torch.from_numpy(media.frames) for _, media in batch])
        samples = torch.stack([torch.from_numpy(media.samples) for _, media in batch])
        video = encoders.video.encode(frames)
        audio = encoders.audio.encode(samples)
        video_text = encoders.video_text.encode([one.video for one in captions])
        audio_text = encoders.audio_text.encode([one.audio for one in captions])
    for k, (clip, media) in enumerate(batch):
        sample = EncodedSample(
            key=clip.clip_id,
            source=clip.source.digest,
            subsets=subsets(clip, shape),
            video=_numpy(video[k]),
            audio=_numpy(audio[k]),
            video_text=_numpy(video_text[k]),
            audio_text=_numpy(audio_text[k]),
            meta=facts(clip, shape),
        )
        yield with_round_trip(encoders, media, sample) if clip.clip_id in checked else sample


def _captions(clip: Clip) -> Captions:
    if clip.captions is None:
        raise UsageError(f"clip {clip.clip_id} has no captions; run `avdata caption` first")
    return clip.captions


def _numpy(tensor: torch.Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    array: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = tensor.float().cpu().numpy()
    return array
