"""From a clip of the manifest to a training sample: read by timestamp, encode, gather the facts."""

import numpy as np
import torch

from avdata.encoders.choice import Encoders
from avdata.encoders.spec import ClipShape
from avdata.errors import MediaError, RunError, UsageError
from avdata.pipeline.media.clip import ClipMedia, read_clip
from avdata.pipeline.record import Clip
from avdata.pipeline.shards.facts import facts, subsets
from avdata.pipeline.shards.sample import EncodedSample
from avdata.pipeline.sources.copies import LocalCopies
from avdata.pipeline.sources.files import exists

VERSION = 1
"""Raise when reading or scaling a clip changes; every shard made before is then made again."""


def encode_clip(
    clip: Clip, shape: ClipShape, encoders: Encoders, copies: LocalCopies
) -> EncodedSample:
    """RunError when the source no longer gives the clip; UsageError when it has no captions."""
    if clip.captions is None:
        raise UsageError(f"clip {clip.clip_id} has no captions; run `avdata caption` first")
    media = clip_media(clip, shape, copies)
    with torch.inference_mode():
        video = encoders.video.encode(torch.from_numpy(media.frames)[None])[0]
        audio = encoders.audio.encode(torch.from_numpy(media.samples)[None])[0]
        video_text = encoders.video_text.encode([clip.captions.video])[0]
        audio_text = encoders.audio_text.encode([clip.captions.audio])[0]
    return EncodedSample(
        key=clip.clip_id,
        source=clip.source.digest,
        subsets=subsets(clip),
        video=_numpy(video),
        audio=_numpy(audio),
        video_text=_numpy(video_text),
        audio_text=_numpy(audio_text),
        meta=facts(clip),
    )


def clip_media(clip: Clip, shape: ClipShape, copies: LocalCopies) -> ClipMedia:
    """Read from the first of the clip's sources that is there; RunError when none gives it."""
    uri = next(filter(exists, clip.source.uris), None)
    if uri is None:
        raise RunError(f"{clip.source.uri}: gone since ingest; run `avdata ingest` again")
    try:
        return read_clip(copies.path(uri, clip.source.digest), clip.start_s, shape)
    except MediaError as error:
        raise RunError(
            f"{uri}: changed since ingest ({error}); run `avdata ingest` again"
        ) from error


def _numpy(tensor: torch.Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    array: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = tensor.float().cpu().numpy()
    return array
