"""Whether what lies in a shard belongs together: captions, latents and the clip they are of.

No digest shows that two clips were swapped before they were written. So for some samples the clip
is read from its source and all is encoded again, with the encoders of the dataset: what is stored
must be what they give, but for rounding. Where it is what another of these samples gives, that one
is named.
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
from avdata.pipeline.shards.quality import chosen
from avdata.pipeline.shards.sample import ARRAYS, EncodedSample
from avdata.pipeline.shards.verify import Problem
from avdata.pipeline.sources.clips import held
from avdata.pipeline.sources.copies import LocalCopies
from avdata.pipeline.sources.files import exists

Array = Float[ndarray, "..."]
SHARE = 0.02
"""Of the variance of what is stored; float16 and other devices differ by less than a thousandth."""
ROUNDING = 1e-6
"""Mean squared difference that float16 explains where nothing varies, as in silence."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What was compared and what was found."""

    num_encoded: int
    """Samples that were encoded again whole."""
    num_without_source: int
    """Their source is gone: only their captions could be compared."""
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
        for what in (*_unread(media[k]), *_strangers(k, stored, again))
    ]
    whole = sum(isinstance(one, ClipMedia) for one in media)
    return Identity(whole, sum(one is None for one in media), problems)


def _media(
    dataset: Dataset, entry: SampleEntry, sample: EncodedSample, fit: Fit, copies: LocalCopies
) -> ClipMedia | MediaError | None:
    """None where the source is gone, the error where it is there and cannot be read."""
    uri, shape = sample.meta["source"], dataset.buckets[entry.bucket]
    if not exists(uri):
        return None
    try:
        with held(uri, sample.source, copies) as path:
            in_file_s = sample.meta["start_s"] + sample.meta.get("jumped_s", 0.0)
            return read_clip(path, in_file_s, shape, fit=fit)
    except MediaError as error:
        return error


def _unread(media: ClipMedia | MediaError | None) -> list[str]:
    return [f"its clip cannot be read again: {media}"] if isinstance(media, MediaError) else []


def _encoded(
    sample: EncodedSample, media: ClipMedia | MediaError | None, encoders: Encoders
) -> dict[str, Array]:
    """By role; of captions alone where there is no clip."""
    captions = sample.meta["captions"]
    with torch.inference_mode():
        (seen,) = encoders.video_text.encode([captions["video"]])
        (heard,) = encoders.audio_text.encode([captions["audio"]])
        found = {"video_text": seen, "audio_text": heard}
        if isinstance(media, ClipMedia):
            (found["video"],) = encoders.video.encode(torch.from_numpy(media.frames)[None])
            (found["audio"],) = encoders.audio.encode(torch.from_numpy(media.samples)[None])
    return {role: one.float().cpu().numpy() for role, one in found.items()}


def _strangers(
    k: int, stored: Sequence[EncodedSample], again: Sequence[dict[str, Array]]
) -> list[str]:
    """Of sample k, the roles in which what is stored is not what was encoded again."""
    found = []
    for role in filter(again[k].__contains__, ARRAYS):
        array = getattr(stored[k], role).astype(np.float32)
        if _same(array, again[k][role]):
            continue
        what = f"{role}.npy: not what its clip gives"
        for other, arrays in enumerate(again):
            if role in arrays and _same(array, arrays[role]):
                what += f", but what clip {stored[other].key} gives"
                break
        found.append(what)
    return found


def _same(stored: Array, own: Array) -> bool:
    """False for other shapes and for what is not finite."""
    if stored.shape != own.shape:
        return False
    apart = float(np.square(stored - own).mean())
    return apart <= SHARE * float(stored.var()) + ROUNDING
