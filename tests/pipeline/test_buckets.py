import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avdata.encoders.spec import AudioSpec, VideoSpec
from avdata.errors import UsageError
from avdata.pipeline.record import Clip
from avdata.pipeline.shards.buckets import PRESETS, Buckets, bucket_name, nearest
from tests.pipeline.clips import a_clip

WAN22, OOBLECK = VideoSpec("wan", "0"), AudioSpec("oobleck", "0")
SIZES = st.lists(st.tuples(st.integers(1, 2000), st.integers(1, 2000)), min_size=1, max_size=6)
SQUARES = ((64, 64),)


def lasting(seconds: float, height: int = 1080, width: int = 1920) -> Clip:
    clip = a_clip()
    media = dataclasses.replace(clip.media, height=height, width=width)
    return dataclasses.replace(clip, start_s=1.0, end_s=1.0 + seconds, media=media)


@given(SIZES, st.integers(16, 4000), st.integers(16, 4000))
def test_no_size_is_nearer_in_aspect_than_the_one_taken(
    sizes: list[tuple[int, int]], height: int, width: int
) -> None:
    def apart(size: tuple[int, int]) -> float:
        return abs(math.log(size[1] / size[0]) - math.log(width / height))

    taken = nearest(sizes, height, width)
    assert apart(taken) <= min(map(apart, sizes)) + 1e-8
    assert nearest(sizes, 2 * height, 2 * width) == taken


@pytest.mark.parametrize("name", PRESETS)
def test_a_picture_lies_and_stands_as_it_was(name: str) -> None:
    sizes = PRESETS[name].sizes
    lying, standing = nearest(sizes, 1080, 1920), nearest(sizes, 1920, 1080)
    assert lying == sizes[0]
    if len(sizes) > 1:
        assert standing == lying[::-1]
        assert nearest(sizes, 1000, 1000)[0] == nearest(sizes, 1000, 1000)[1]


@pytest.mark.parametrize("name", PRESETS)
def test_encoders_and_model_take_every_preset(name: str) -> None:
    """The model cuts latents into patches of 2 x 2."""
    for height, width in PRESETS[name].sizes:
        for count in PRESETS[name].num_frames or (33, 81, 121):
            _, _, rows, columns = WAN22.latent_shape(count, height, width)
            assert rows % 2 == columns % 2 == 0


def test_the_papers_presets_have_its_shapes() -> None:
    """arXiv 2512.02457: 33 frames go with 43 latents of sound, 81 with 107."""
    found = []
    for name, seconds in (("paper-2s", 2.0625), ("paper-5s", 5.0625)):
        one = PRESETS[name]
        assert one.fps is not None
        shape = Buckets(one.sizes, one.num_frames, one.fps).shape(lasting(seconds))
        video = WAN22.latent_shape(shape.num_frames, shape.height, shape.width)
        found.append((video, OOBLECK.latent_length(shape.num_samples)))
    assert found == [((48, 9, 12, 20), 43), ((48, 21, 12, 20), 107)]


@given(st.sets(st.integers(1, 40), min_size=1, max_size=4), st.floats(0.1, 12.0))
def test_a_clip_takes_the_most_frames_that_lie_in_it(counts: set[int], seconds: float) -> None:
    buckets = Buckets(SQUARES, tuple(4 * k + 1 for k in counts), fps=16)
    lengths = {n: (n - 1) / 16 for n in buckets.num_frames}
    fitting = [n for n, length in lengths.items() if length <= seconds + 1e-3]
    if not fitting:
        with pytest.raises(UsageError, match=r"has [\d.]+ s, \d+ frames at 16 fps need"):
            buckets.shape(lasting(seconds))
        return
    shape = buckets.shape(lasting(seconds))
    assert shape.num_frames == max(fitting)
    assert shape.num_samples / shape.sample_rate <= seconds + 2e-3


def test_a_bucket_is_named_by_its_shape() -> None:
    shapes = [
        Buckets(((192, 320), (320, 192)), (33, 81), 16).shape(lasting(seconds, *size))
        for seconds in (2.1, 5.1)
        for size in ((1080, 1920), (1920, 1080))
    ]
    names = [bucket_name(shape) for shape in shapes]
    assert names == ["33x192x320", "33x320x192", "81x192x320", "81x320x192"]
