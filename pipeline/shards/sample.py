"""One training sample as it lies in a tar: consecutive members that share a key, by name.

KEY.video.npy KEY.audio.npy          float16 latents, (c t h w) and (c l)
KEY.video_text.npy KEY.audio_text.npy  float16 token embeddings, (n d), unpadded
KEY.json                             id, captions, labels, events, where it comes from
"""

import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from avdata.errors import RunError

ARRAYS = ("video", "audio", "video_text", "audio_text")
LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """Latents, text embeddings and facts of one clip."""

    key: str
    source: str
    """Digest of the source; a split never shares one with another split."""
    subsets: list[str]
    video: Float[ndarray, "c t h w"]
    audio: Float[ndarray, "c l"]
    video_text: Float[ndarray, "n d"]
    audio_text: Float[ndarray, "k e"]
    meta: dict[str, Any]


def to_members(sample: EncodedSample) -> dict[str, bytes]:
    """Member name to bytes, in the tar's order; RunError for a value that float16 cannot hold."""
    members = {f"{name}.npy": _npy(sample, name) for name in ARRAYS}
    members["json"] = json.dumps(sample.meta, sort_keys=True, ensure_ascii=False).encode()
    return dict(sorted(members.items()))


def _npy(sample: EncodedSample, name: str) -> bytes:
    array = getattr(sample, name)
    if not np.isfinite(array).all() or np.abs(array).max(initial=0.0) > LARGEST:
        raise RunError(
            f"clip {sample.key}: its {name} has values that are not finite or beyond float16; "
            "the encoder is broken or the clip is not what was measured"
        )
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array, dtype=np.float16), allow_pickle=False)
    return file.getvalue()
