"""The table of bytes a clip in docs/shards.md, computed from the published encoders' specs."""

import io
import tarfile
from pathlib import Path

import numpy as np

from avdata.encoders.spec import AudioSpec, ClipShape, Specs, TextSpec, VideoSpec
from avdata.pipeline.shards.sample import EncodedSample, to_members

DOCUMENT = Path(__file__).parents[2] / "docs" / "shards.md"
PUBLISHED = Specs(
    VideoSpec("wan", "0"),
    AudioSpec("oobleck", "0"),
    TextSpec("umt5", "0", width=4096, max_tokens=512),
    TextSpec("t5", "0", width=1024, max_tokens=64),
)
PRESETS = [ClipShape(num_frames=33), ClipShape(num_frames=81)]
TOKENS = [("captions of 100 and 30 tokens", 100, 30), ("the longest captions", 512, 64)]


def a_sample(clip: ClipShape, video_tokens: int, audio_tokens: int) -> EncodedSample:
    """With nothing in KEY.json, which is as long as its facts are."""
    specs = PUBLISHED
    shapes = {
        "video": specs.video.latent_shape(clip.num_frames, clip.height, clip.width),
        "audio": (specs.audio.channels, specs.audio.latent_length(clip.num_samples)),
        "video_text": (video_tokens, specs.video_text.width),
        "audio_text": (audio_tokens, specs.audio_text.width),
    }
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    return EncodedSample("0" * 32, "0", [], **arrays, meta={})


def rows() -> list[str]:
    out = []
    for role in ("video", "audio"):
        cells = []
        for clip in PRESETS:
            sample = a_sample(clip, 0, 0)
            shape = " x ".join(str(size) for size in getattr(sample, role).shape)
            cells.append(f"{shape}: {len(to_members(sample)[f'{role}.npy']):,}")
        out.append(f"| `{role}.npy` | {' | '.join(cells)} |")
    for role in ("video_text", "audio_text"):
        none, one = (len(to_members(a_sample(PRESETS[0], n, n))[f"{role}.npy"]) for n in (0, 1))
        cell = f"{none} + {one - none:,} a token"
        out.append(f"| `{role}.npy` | {cell} | {cell} |")
    for what, video, audio in TOKENS:
        cells = [f"{in_a_tar(a_sample(clip, video, audio)):,}" for clip in PRESETS]
        out.append(f"| in the tar, {what} | {' | '.join(cells)} |")
    return out


def in_a_tar(sample: EncodedSample) -> int:
    """Bytes of its arrays in a tar: members are padded to 512, and each has a header of 512."""
    data = {name: one for name, one in to_members(sample).items() if name != "json"}
    return sum(tarfile.BLOCKSIZE + -(-len(one) // 512) * 512 for one in data.values())


def test_the_document_has_the_bytes_that_the_specs_give() -> None:
    text = DOCUMENT.read_text()
    missing = [row for row in rows() if row not in text]
    assert missing == []


def test_a_tar_is_as_large_as_told() -> None:
    sample = a_sample(PRESETS[0], 7, 3)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in to_members(sample).items():
            if name != "json":
                member = tarfile.TarInfo(f"{sample.key}.{name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        assert tar.offset == in_a_tar(sample)
