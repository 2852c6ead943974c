import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from avdata.pipeline.captions import template_captions
from avdata.pipeline.record import Audio, Clip
from tests.pipeline.clips import EVENT, SOUND, a_clip

AUDIO = st.builds(
    dataclasses.replace,
    st.just(SOUND),
    rms_dbfs=st.floats(-120, 0),
    onsets_s=st.lists(st.floats(0, 2), max_size=8),
)


def clip(
    motion: str = "small",
    luma: float = 0.5,
    speed: float = 0.0,
    audio: Audio | None = SOUND,
    num_events: int = 0,
) -> Clip:
    base = a_clip(motion=motion, luma_mean=luma, audio=audio, contact=num_events > 0)
    moved = dataclasses.replace(base.motion, camera_speed=speed)
    return dataclasses.replace(base, motion=moved, events=[EVENT] * num_events)


@settings(deadline=None)
@given(
    st.sampled_from(["static", "small", "large"]),
    st.floats(0, 1),
    st.floats(0, 3),
    st.none() | AUDIO,
    st.integers(0, 9),
)
def test_every_clip_has_two_sentences_and_always_the_same(
    motion: str, luma: float, speed: float, audio: Audio | None, num_events: int
) -> None:
    one = clip(motion, luma, speed, audio, num_events)
    said = template_captions(one)
    assert said.video
    assert said.audio
    assert "\n" not in said.video + said.audio
    assert template_captions(one) == said


def test_what_is_seen_is_said_in_the_video_caption_only() -> None:
    base = template_captions(clip())
    for other in (clip(motion="large"), clip(luma=0.05), clip(speed=0.5)):
        said = template_captions(other)
        assert said.video != base.video
        assert said.audio == base.audio


def test_what_is_heard_is_said_in_the_audio_caption_only() -> None:
    base = template_captions(clip())
    quiet = dataclasses.replace(SOUND, rms_dbfs=-50.0)
    steady = dataclasses.replace(SOUND, onsets_s=[])
    for other in (clip(audio=quiet), clip(audio=steady), clip(audio=None)):
        said = template_captions(other)
        assert said.audio != base.audio
        assert said.video == base.video


def test_silence_claims_nothing_more() -> None:
    silent = clip()
    silent = dataclasses.replace(silent, labels=dataclasses.replace(silent.labels, silent=True))
    assert template_captions(silent).audio == template_captions(clip(audio=None)).audio == "silence"


def test_an_impact_is_claimed_only_where_one_was_measured() -> None:
    assert "impact" not in template_captions(clip()).video
    assert "hits" not in template_captions(clip()).audio
    assert "one impact in view" in template_captions(clip(num_events=1)).video
    assert "two impacts in view" in template_captions(clip(num_events=2)).video
    assert "hits" in template_captions(clip(num_events=1)).audio


def test_onsets_are_counted_in_words() -> None:
    counts = [
        template_captions(clip(audio=dataclasses.replace(SOUND, onsets_s=[0.1] * n))).audio
        for n in (1, 2, 7)
    ]
    assert counts[0].endswith("one onset")
    assert counts[1].endswith("two onsets")
    assert counts[2].endswith("many onsets")


def test_the_captions_say_who_made_them() -> None:
    one, other = template_captions(clip()), template_captions(clip(audio=None))
    assert one.model == "template"
    assert one.prompt_digest == other.prompt_digest
