"""From clips of the manifest to training samples: read by timestamp, encode, gather the facts."""

import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from avdata import storage
from avdata.encoders.choice import Encoders
from avdata.encoders.spec import ClipShape
from avdata.errors import MediaError, RunError, UsageError
from avdata.pipeline.media.clip import ClipMedia, read_clip
from avdata.pipeline.media.geometry import CENTER_CROP, Fit
from avdata.pipeline.record import Captions, Clip
from avdata.pipeline.shards.facts import facts, subsets
from avdata.pipeline.shards.index import FailedClip
from avdata.pipeline.shards.quality import with_round_trip
from avdata.pipeline.shards.sample import EncodedSample
from avdata.pipeline.sources.copies import LocalCopies
from avdata.pipeline.sources.files import exists, is_remote

VERSION = 3
"""Raise when reading or scaling a clip changes; every shard made before is then made again."""
FETCHING = threading.Lock()
"""Held while a source is fetched, and so while copies of others are removed to make room."""


def _read(path: Path, start_s: float, shape: ClipShape, fit: Fit) -> ClipMedia:
    return read_clip(path, start_s, shape, fit=fit)


Read = Callable[[Path, float, ClipShape, Fit], ClipMedia]
"""`Decoders.read`, or its like in this process."""


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


def clip_media(
    clip: Clip, shape: ClipShape, copies: LocalCopies, fit: Fit = CENTER_CROP, read: Read = _read
) -> ClipMedia:
    """Read from the first of the clip's sources that is there.

    RunError when none is, or when it is not what was measured; MediaError when it is and cannot
    be decoded.
    """
    uri = next(filter(exists, clip.source.uris), None)
    if uri is None:
        raise RunError(f"{clip.source.uri}: gone since ingest; run `avdata ingest` again")
    try:
        with held(uri, clip.source.digest, copies) as path:
            size = path.stat().st_size
            if size != clip.source.size_bytes:
                had = clip.source.size_bytes
                raise MediaError("read", "changed", f"{size} bytes, at ingest {had}")
            return _read_unchanged(clip, path, shape, fit, read)
    except MediaError as error:
        if error.stage != "read":
            raise
        what = "changed since ingest" if error.reason == "changed" else "cannot be read"
        raise RunError(f"{uri}: {what} ({error}); run `avdata ingest` again") from error


def _read_unchanged(clip: Clip, path: Path, shape: ClipShape, fit: Fit, read: Read) -> ClipMedia:
    try:
        return read(path, clip.start_s, shape, fit)
    except MediaError as error:
        if storage.digest_file(path) != clip.source.digest:
            raise MediaError("read", "changed", str(error)) from error
        raise


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
