"""Whether what lies in a shard belongs together: captions, latents and the clip they are of.

No digest shows that two clips were swapped before they were written. So for some samples the clip
is read from its source and all is encoded again: what is stored must be nearer to its own than to
any other sample's. Nothing but the dataset's own encoders is needed for that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from avdata.encoders.choice import Encoders
from avdata.errors import MediaError
from avdata.pipeline.media.clip import ClipMedia, read_clip
from avdata.pipeline.media.geometry import Fit
from avdata.pipeline.shards.dataset import Dataset, SampleEntry, read_sample
from avdata.pipeline.shards.encode import held
from avdata.pipeline.shards.quality import chosen
from avdata.pipeline.shards.sample import ARRAYS, EncodedSample
from avdata.pipeline.shards.verify import Problem
from avdata.pipeline.sources.copies import LocalCopies
from avdata.pipeline.sources.files import exists

Vector = Float[ndarray, " n"]


@dataclass(frozen=True, slots=True)
class Identity:
    """What was compared and what was found."""

    num_compared: int
    num_without_source: int
    """Their latents could not be compared, only their captions."""
    problems: list[Problem]


def check_identity(dataset: Dataset, encoders: Encoders, fit: Fit, count: int) -> Identity:
    """For `count` samples, a draw that depends on nothing else; SpecMismatch for other encoders."""
    dataset.specs.require(encoders.specs, str(dataset.root))
    entries = {one.key: one for split in ("train", "val") for one in dataset.samples(split)}
    picked = [entries[key] for key in sorted(chosen(entries, count))]
    stored = [read_sample(dataset.root, entry) for entry in picked]
    copies = LocalCopies(16.0)
    media = [_media(dataset, *both, fit, copies) for both in zip(picked, stored, strict=True)]
    again = [_encoded(*both, encoders) for both in zip(stored, media, strict=True)]
    problems = [
        Problem(entry.tar.removesuffix(".tar"), entry.key, what)
        for k, entry in enumerate(picked)
        for what in _strangers(k, stored, again)
    ]
    return Identity(len(picked), sum(one is None for one in media), problems)


def _media(
    dataset: Dataset, entry: SampleEntry, sample: EncodedSample, fit: Fit, copies: LocalCopies
) -> ClipMedia | None:
    uri, shape = sample.meta["source"], dataset.buckets[entry.bucket]
    if not exists(uri):
        return None
    try:
        with held(uri, sample.source, copies) as path:
            return read_clip(path, sample.meta["start_s"], shape, fit=fit)
    except MediaError:
        return None


def _encoded(
    sample: EncodedSample, media: ClipMedia | None, encoders: Encoders
) -> dict[str, Vector]:
    """By role; latents as they are, a caption's embeddings as their mean."""
    captions = sample.meta["captions"]
    with torch.inference_mode():
        (seen,) = encoders.video_text.encode([captions["video"]])
        (heard,) = encoders.audio_text.encode([captions["audio"]])
        found = {"video_text": seen.mean(0), "audio_text": heard.mean(0)}
        if media is not None:
            found["video"] = encoders.video.encode(torch.from_numpy(media.frames)[None])
            found["audio"] = encoders.audio.encode(torch.from_numpy(media.samples)[None])
    return {role: one.float().cpu().numpy().ravel() for role, one in found.items()}


def _strangers(
    k: int, stored: Sequence[EncodedSample], again: Sequence[dict[str, Vector]]
) -> list[str]:
    """Of sample k, the roles in which another's is nearer to what is stored than its own."""
    found = []
    for role in ARRAYS:
        array = getattr(stored[k], role).astype(np.float32)
        vector = array.mean(0) if role.endswith("_text") else array.ravel()
        if role not in again[k]:
            continue
        own = _apart(vector, again[k][role])
        for other, vectors in enumerate(again):
            near = role in vectors and _apart(vector, vectors[role]) < 0.5 * own
            if other != k and near:
                found.append(f"{role}.npy: nearer to that of clip {stored[other].key}")
                break
    return found


def _apart(one: Vector, other: Vector) -> float:
    """Infinite for those of other shapes."""
    return float(np.square(one - other).mean()) if one.shape == other.shape else float("inf")
