"""Flashes and clicks keep their times from a clip through encoders and shard back to media.

The specs predict where each must lie: frame k in latent frame (k + 3) // 4, sample m in audio
latent m // 2048.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray

from avdata.encoders.choice import Encoders, EncodersConfig
from avdata.encoders.spec import ClipShape
from avdata.pipeline.media.clip import ClipMedia
from avdata.pipeline.shards.dataset import open_dataset, read_sample
from avdata.pipeline.shards.encode import encode_clips
from avdata.pipeline.shards.plan import PlanSettings, plan_shards
from avdata.pipeline.shards.sample import EncodedSample
from avdata.pipeline.shards.writer import write_dataset, write_shard
from tests.pipeline.clips import a_clip
from tests.pipeline.media import plain

SHAPE = ClipShape(num_frames=81, height=64, width=96)
FLASHES = (5, 18, 32, 47, 60, 75)
"""Frames, each at another place in its group of four, from the beginning to the end of 5 s."""
RATE, FPS = SHAPE.sample_rate, SHAPE.fps
HOP, FRAME_MS = 2048, 1000 / SHAPE.fps


def flashing() -> UInt8[ndarray, "n h w 3"]:
    """Dark, but for one bright frame at each flash."""
    return np.stack([plain(220 if k in FLASHES else 30, 64, 96) for k in range(SHAPE.num_frames)])


def clicking(lag_ms: float) -> Float[ndarray, "2 m"]:
    """A low click, which the default encoder keeps, so much after each flash."""
    t = np.arange(SHAPE.num_samples) / RATE
    sound = np.zeros_like(t)
    for k in FLASHES:
        since = t - k / FPS - lag_ms / 1000
        sound += 0.6 * np.sin(2 * np.pi * 300 * since) * np.exp(-since * 80) * (since >= 0)
    return np.stack([sound, sound]).astype(np.float32)


def flashes_in(frames: UInt8[ndarray, "n h w 3"]) -> list[float]:
    """Times in ms: the brightest frame near where each was."""
    light = frames.mean(axis=(1, 2, 3))
    return [(k - 4 + int(light[k - 4 : k + 5].argmax())) * FRAME_MS for k in FLASHES]


def clicks_in(samples: Float[ndarray, "2 m"], lag_ms: float) -> list[float]:
    """Times in ms: where the level first reaches half its height near where each was."""
    found, reach = [], round(0.09 * RATE)
    for k in FLASHES:
        at = round((k / FPS + lag_ms / 1000) * RATE)
        near = np.abs(samples[:, at - reach : at + reach]).max(axis=0)
        first = int(np.flatnonzero(near > near.max() / 2)[0])
        found.append(1000 * (at - reach + first) / RATE)
    return found


@pytest.fixture(scope="module")
def encoders() -> Encoders:
    return EncodersConfig().open(torch.device("cpu"))


def through_a_shard(root: Path, media: ClipMedia, encoders: Encoders) -> EncodedSample:
    (plan,) = plan_shards([a_clip()], lambda _: SHAPE, PlanSettings(val_fraction=0))
    write_shard(root, plan, encode_clips(plan.clips, [media], SHAPE, encoders))
    write_dataset(root, encoders.specs, [plan], {})
    dataset = open_dataset(root)
    return read_sample(root, dataset.samples("train")[0])


@pytest.mark.parametrize("lag_ms", [0.0, 40.0, -40.0])
def test_lags_are_kept_without_drift(tmp_path: Path, encoders: Encoders, lag_ms: float) -> None:
    media = ClipMedia(flashing(), clicking(lag_ms))
    sample = through_a_shard(tmp_path, media, encoders)
    frames = encoders.video.decode(torch.from_numpy(sample.video).float()[None])[0].numpy()
    sound = encoders.audio.decode(torch.from_numpy(sample.audio).float()[None])[0].numpy()
    assert len(frames) == SHAPE.num_frames
    assert sound.shape[1] == SHAPE.num_samples // HOP * HOP
    assert flashes_in(frames) == flashes_in(media.frames)
    before = np.subtract(clicks_in(media.samples, lag_ms), flashes_in(media.frames))
    after = np.subtract(clicks_in(sound, lag_ms), flashes_in(frames))
    assert before == pytest.approx([lag_ms] * len(FLASHES), abs=2)
    # Far within one frame (62.5 ms) and one hop (46.4 ms): these encoders keep times in a hop.
    assert after == pytest.approx(before, abs=2)
    drift_ms_per_s = np.polyfit(np.array(FLASHES) / FPS, after - before, 1)[0]
    assert SHAPE.seconds * abs(drift_ms_per_s) < 0.5


def test_each_event_lies_where_the_specs_say(tmp_path: Path, encoders: Encoders) -> None:
    sample = through_a_shard(tmp_path, ClipMedia(flashing(), clicking(0.0)), encoders)
    quiet = through_a_shard(
        tmp_path / "quiet",
        ClipMedia(np.stack([plain(30, 64, 96)] * 81), np.zeros_like(clicking(0.0))),
        encoders,
    )
    video, audio = encoders.specs.video, encoders.specs.audio
    changed = np.abs(sample.video - quiet.video).max(axis=(0, 2, 3)) > 0.1
    wanted = {-(-k // video.stride_time) for k in FLASHES}
    assert set(np.flatnonzero(changed).tolist()) == wanted
    heard = np.abs(sample.audio - quiet.audio).max(axis=0)
    for k in FLASHES:
        at = round(k * RATE / FPS) // audio.hop
        assert heard[at] > 0.5
        assert heard[at - 2] < 0.05
    # The ratio by which the model lines the two up (arXiv 2512.02457).
    assert video.latent_seconds(FPS) * (sample.video.shape[1] - 1) == SHAPE.seconds
    assert audio.latent_seconds() * sample.audio.shape[1] == pytest.approx(SHAPE.seconds, abs=0.05)
