import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avdata.encoders.choice import EncodersConfig
from avdata.encoders.spec import ClipShape
from avdata.errors import SpecMismatch
from avdata.pipeline.media.geometry import CENTER_CROP
from avdata.pipeline.record import Clip
from avdata.pipeline.shards.dataset import Dataset, open_dataset
from avdata.pipeline.shards.encode import encode_clips
from avdata.pipeline.shards.identity import Identity, check_identity
from avdata.pipeline.shards.plan import PlanSettings, plan_shards
from avdata.pipeline.shards.sample import ARRAYS, EncodedSample
from avdata.pipeline.shards.writer import write_dataset, write_shard
from avdata.pipeline.sources.clips import clip_media
from avdata.pipeline.sources.copies import LocalCopies
from tests.pipeline.clips import CAPTIONS, a_clip
from tests.pipeline.media import Sound, clicks, textured, times_at, write_movie

SHAPE = ClipShape(num_frames=17, height=64, width=96)
ENCODERS = EncodersConfig().open(torch.device("cpu"))
Change = Callable[[list[EncodedSample]], list[EncodedSample]]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Of four films, none like another."""
    made, folder = [], tmp_path_factory.mktemp("films")
    for k in range(4):
        pictures = [np.roll(textured(k, 64, 96), 2 * n, axis=1) for n in range(36)]
        path = folder / f"{k}.mp4"
        write_movie(path, pictures, times_at(24, 36), Sound(clicks([0.2 + 0.2 * k], 1.5)))
        clip = a_clip(str(path))
        source = dataclasses.replace(clip.source, uri=str(path), uris=[str(path)])
        source = dataclasses.replace(source, size_bytes=path.stat().st_size)
        said = dataclasses.replace(CAPTIONS, video=f"film {k} of {'abcd'[k]}", audio=f"click {k}")
        made.append(dataclasses.replace(clip, source=source, captions=said))
    return made


def encoded(root: Path, clips: list[Clip], change: Change = list) -> Dataset:
    (plan,) = plan_shards(clips, lambda _: SHAPE, PlanSettings(val_fraction=0))
    media = [clip_media(clip, SHAPE, LocalCopies(1.0)) for clip in plan.clips]
    samples = encode_clips(plan.clips, media, SHAPE, ENCODERS)
    write_shard(root, plan, change([one for one in samples if isinstance(one, EncodedSample)]))
    write_dataset(root, ENCODERS.specs, [plan], {})
    return open_dataset(root)


def checked(dataset: Dataset, count: int = 4) -> Identity:
    return check_identity(dataset, ENCODERS, CENTER_CROP, count, LocalCopies(1.0))


def test_what_was_encoded_from_its_clip_is_found_so(tmp_path: Path, clips: list[Clip]) -> None:
    found = checked(encoded(tmp_path, clips))
    assert (found.num_encoded, found.num_without_source, found.problems) == (4, 0, [])


@pytest.mark.parametrize("role", ["video", "audio", "video_text", "audio_text"])
def test_what_was_swapped_before_it_was_written_is_named(
    tmp_path: Path, clips: list[Clip], role: str
) -> None:
    def swapped(samples: list[EncodedSample]) -> list[EncodedSample]:
        one, other, *rest = samples
        return [
            dataclasses.replace(one, **{role: getattr(other, role)}),
            dataclasses.replace(other, **{role: getattr(one, role)}),
            *rest,
        ]

    dataset = encoded(tmp_path, clips, swapped)
    one, other = (entry.key for entry in dataset.samples("train")[:2])
    said = {problem.key: problem.what for problem in checked(dataset).problems}
    assert said == {
        one: f"{role}.npy: not what its clip gives, but what clip {other} gives",
        other: f"{role}.npy: not what its clip gives, but what clip {one} gives",
    }


@pytest.mark.parametrize("role", ARRAYS)
@pytest.mark.parametrize("count", [1, 2])
def test_what_no_clip_gives_is_found_without_the_others(
    tmp_path: Path, clips: list[Clip], role: str, count: int
) -> None:
    """Each array alone is garbage of the right kind: the same values in another order."""

    def garbage(samples: list[EncodedSample]) -> list[EncodedSample]:
        rng = np.random.default_rng(0)
        mixed: list[dict[str, Any]] = [{role: rng.permuted(getattr(one, role))} for one in samples]
        return [dataclasses.replace(one, **new) for one, new in zip(samples, mixed, strict=True)]

    found = checked(encoded(tmp_path, clips, garbage), count)
    assert [one.what for one in found.problems] == [f"{role}.npy: not what its clip gives"] * count


def test_a_swap_is_found_where_only_one_of_both_is_looked_at(
    tmp_path: Path, clips: list[Clip]
) -> None:
    def turned(samples: list[EncodedSample]) -> list[EncodedSample]:
        others = [*samples[1:], samples[0]]
        return [
            dataclasses.replace(one, video=other.video)
            for one, other in zip(samples, others, strict=True)
        ]

    (problem,) = checked(encoded(tmp_path, clips, turned), 1).problems
    assert problem.what == "video.npy: not what its clip gives"


def test_rounding_as_another_device_does_it_is_no_problem(
    tmp_path: Path, clips: list[Clip]
) -> None:
    def rounded(samples: list[EncodedSample]) -> list[EncodedSample]:
        """To the eight bits of bfloat16."""
        arrays: list[dict[str, Any]] = [
            {
                role: torch.from_numpy(getattr(one, role)).bfloat16().float().numpy()
                for role in ARRAYS
            }
            for one in samples
        ]
        return [dataclasses.replace(one, **new) for one, new in zip(samples, arrays, strict=True)]

    assert checked(encoded(tmp_path, clips, rounded)).problems == []


def test_a_source_that_cannot_be_decoded_any_more_is_a_problem(
    tmp_path: Path, clips: list[Clip]
) -> None:
    path = Path(clips[0].source.uri)
    dataset, before = encoded(tmp_path, clips), path.read_bytes()
    path.write_bytes(b"no film")
    try:
        found = checked(dataset)
    finally:
        path.write_bytes(before)
    assert (found.num_encoded, found.num_without_source) == (3, 0)
    (problem,) = found.problems
    assert problem.key == clips[0].clip_id
    assert problem.what.startswith("its clip cannot be read again: probe: not_media")


def test_a_source_that_is_gone_is_counted(tmp_path: Path, clips: list[Clip]) -> None:
    path = Path(clips[0].source.uri)
    dataset = encoded(tmp_path, clips)
    away = path.rename(path.with_suffix(".away"))
    try:
        found = checked(dataset)
    finally:
        away.rename(path)
    assert (found.num_encoded, found.num_without_source, found.problems) == (3, 1, [])


def test_another_encoder_is_refused(tmp_path: Path, clips: list[Clip]) -> None:
    dataset = encoded(tmp_path, clips)
    video = dataclasses.replace(dataset.specs.video, digest="of other weights")
    other = dataclasses.replace(dataset, specs=dataclasses.replace(dataset.specs, video=video))
    with pytest.raises(SpecMismatch, match="video encoder digest"):
        checked(other)
