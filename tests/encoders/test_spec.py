import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avdata.encoders.spec import AudioSpec, ClipShape, Specs, TextSpec, VideoSpec, tau
from avdata.errors import SpecMismatch

VIDEO, AUDIO = VideoSpec("v", "0"), AudioSpec("a", "0")
SPECS = Specs(VIDEO, AUDIO, TextSpec("vt", "0", 64, 32), TextSpec("at", "0", 48, 16))


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(1, 40), st.integers(1, 40))
def test_latent_frames_and_frames_are_each_others_inverse(k: int, h: int, w: int) -> None:
    num_frames = VIDEO.stride_time * k + 1
    height, width = h * VIDEO.stride_height, w * VIDEO.stride_width
    assert VIDEO.latent_shape(num_frames, height, width) == (VIDEO.channels, k + 1, h, w)
    assert VIDEO.num_frames(k + 1) == num_frames


@pytest.mark.parametrize(
    ("sizes", "what"),
    [
        ((32, 32, 32), "frames - 1 = 31"),
        ((0, 32, 32), "frames - 1 = -1"),
        ((33, 40, 32), "height = 40"),
        ((33, 32, 8), "width = 8"),
    ],
)
def test_sizes_that_do_not_divide_are_named(sizes: tuple[int, int, int], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        VIDEO.latent_shape(*sizes)


@settings(deadline=None)
@given(st.integers(0, 500_000))
def test_audio_latents_are_whole_hops(num_samples: int) -> None:
    length = AUDIO.latent_length(num_samples)
    assert 0 <= num_samples - AUDIO.num_samples(length) < AUDIO.hop
    assert AUDIO.latent_length(AUDIO.num_samples(length)) == length


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(1, 60), st.sampled_from([16_000, 44_100, 48_000]))
def test_the_sound_is_as_long_as_the_picture_from_first_to_last_frame(
    k: int, fps: int, rate: int
) -> None:
    shape = ClipShape(num_frames=4 * k + 1, fps=fps, sample_rate=rate)
    assert shape.num_samples / rate == pytest.approx(shape.seconds, abs=0.5001 / rate)
    assert shape.shown_seconds - shape.seconds == pytest.approx(1 / fps)


def test_the_ratio_of_the_clocks_is_the_papers() -> None:
    """Section 1.4: 5.3833 at 16 frames per second; section 2: 88,200 samples give 43 latents."""
    assert tau(VIDEO, AUDIO, 16) == pytest.approx(5.3833, abs=1e-4)
    assert AUDIO.latent_length(ClipShape(num_frames=33, fps=16).num_samples) == 43


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60))
def test_the_ratio_falls_as_the_rate_rises(fps: int, times: int) -> None:
    assert tau(VIDEO, AUDIO, fps * times) == pytest.approx(tau(VIDEO, AUDIO, fps) / times)


@pytest.mark.parametrize("field", ["num_frames", "fps", "height", "width", "sample_rate"])
def test_a_clip_of_nothing_is_refused_by_name(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(ClipShape(), **{field: 0})


def test_specs_come_back_from_json() -> None:
    assert Specs.from_plain(json.loads(json.dumps(dataclasses.asdict(SPECS)))) == SPECS


def test_specs_that_agree_pass() -> None:
    SPECS.require(Specs.from_plain(dataclasses.asdict(SPECS)), "shards")


@pytest.mark.parametrize(
    ("role", "field"),
    [
        (role, field.name)
        for role in ("video", "audio", "video_text", "audio_text")
        for field in dataclasses.fields(getattr(SPECS, role))
    ],
)
def test_the_field_that_differs_is_named_with_both_values(role: str, field: str) -> None:
    one = getattr(SPECS, role)
    value = getattr(one, field)
    other = value + 1 if isinstance(value, int) else value + "-other"
    found = dataclasses.replace(SPECS, **{role: dataclasses.replace(one, **{field: other})})
    with pytest.raises(SpecMismatch, match=rf"^out/shards: {role} encoder {field} is") as caught:
        SPECS.require(found, "out/shards")
    assert repr(other) in str(caught.value)
    assert repr(value) in str(caught.value)
