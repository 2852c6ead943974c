"""Real shards of random latents, so that training is tested without media or encoders."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from avdata.encoders.spec import ClipShape, Specs
from avdata.pipeline.record import Clip
from avdata.pipeline.shards.dataset import Dataset, open_dataset
from avdata.pipeline.shards.facts import subsets
from avdata.pipeline.shards.plan import PlanSettings, plan_shards
from avdata.pipeline.shards.sample import EncodedSample
from avdata.pipeline.shards.writer import write_dataset, write_shard
from tests.pipeline.clips import a_clip
from tests.trainer.tiny import CLIP, SPECS


def write_shards(
    root: Path, num_sources: int = 7, specs: Specs = SPECS, shape: ClipShape = CLIP
) -> Dataset:
    """Two clips of each source, in several shards of both splits."""
    return write_buckets(root, [(num_sources, shape)], specs)


def write_buckets(
    root: Path, buckets: Sequence[tuple[int, ClipShape]], specs: Specs = SPECS
) -> Dataset:
    """The same for several shapes, each with so many sources of its own."""
    plans = []
    for number, (num_sources, shape) in enumerate(buckets):
        clips = [
            a_clip(f"{number}-{source}.mp4" if number else f"{source}.mp4", 2.5 * k, contact=k == 0)
            for source in range(num_sources)
            for k in range(2)
        ]
        settings = PlanSettings(samples_per_shard=4, val_fraction=0.3)
        for plan in plan_shards(clips, partial(_same, shape), settings):
            write_shard(root, plan, (_sample(clip, specs, shape) for clip in plan.clips))
            plans.append(plan)
    write_dataset(root, specs, plans, {"manifest_digest": "0"})
    return open_dataset(root)


def _same(shape: ClipShape, _clip: Clip) -> ClipShape:
    return shape


def _sample(clip: Clip, specs: Specs, shape: ClipShape) -> EncodedSample:
    rng = np.random.default_rng(int(clip.clip_id[:8], 16))

    def drawn(*size: int) -> Float32[ndarray, "..."]:
        return rng.standard_normal(size, dtype=np.float32)

    return EncodedSample(
        key=clip.clip_id,
        source=clip.source.digest,
        subsets=subsets(clip, shape),
        video=drawn(*specs.video.latent_shape(shape.num_frames, shape.height, shape.width)),
        audio=drawn(specs.audio.channels, specs.audio.latent_length(shape.num_samples)),
        video_text=drawn(int(rng.integers(1, 6)), specs.video_text.width),
        audio_text=drawn(int(rng.integers(1, 6)), specs.audio_text.width),
        meta={"clip_id": clip.clip_id, "captions": {"video": "a ball", "audio": "a hit"}},
    )
