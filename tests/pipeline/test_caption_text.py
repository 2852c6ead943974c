from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avdata.encoders.captioner import Answer
from avdata.errors import UsageError
from avdata.pipeline.caption_text import MAX_CHARACTERS, ROLES, cleaned, load_prompt


@given(st.text())
def test_an_answer_gives_one_bounded_line_or_a_reason(text: str) -> None:
    answer = cleaned(Answer(text))
    assert (answer.text is None) != (answer.reason is None)
    if answer.text is not None:
        assert answer.text.isprintable()
        assert answer.text == " ".join(answer.text.split())
        assert 0 < len(answer.text) <= MAX_CHARACTERS
        assert cleaned(answer) == answer


@pytest.mark.parametrize(
    "said",
    [
        "a ball bounces",
        ' "a ball\n bounces" ',
        "Caption: a ball bounces",
        "**Video caption:** a ball bounces",
        "<think>It says caption: a dog. Or not.</think>\n\na ball bounces",
        "\u201ca ball bounces\u201d",
        "The user wants a caption. I see a ball.\n</think>\n\na ball bounces",
        "<think>It is a ball.</think> So: </think>a ball bounces",
        "Sure! Here is a caption: a ball bounces",
        "Certainly! Here\u2019s a concise description of the video: a ball bounces",
        "Here is the caption:\n\n**a ball bounces**",
        "Sure! a ball bounces",
    ],
)
def test_what_is_around_a_caption_goes(said: str) -> None:
    assert cleaned(Answer(said)) == Answer("a ball bounces")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("", "empty"),
        (" \u200b\n", "empty"),
        ("...", "empty"),
        ("<think>a ball, and it never ends", "empty"),
        ("I'm sorry, but I can't help with that.", "refused"),
        ("I\u2019m sorry, I cannot describe this.", "refused"),
        ("As an AI, I do not see.", "refused"),
        ("Please provide the audio.", "refused"),
        ("There is no audio provided.", "refused"),
        ("I am sorry, but I cannot help with that.", "refused"),
        ("I'm afraid I can't describe this image.", "refused"),
        ("I don't see any video in your message.", "refused"),
        ("I don't have access to the clip.", "refused"),
        ("No audio was provided.", "refused"),
        ("I do not have the ability to listen to audio.", "refused"),
        ("It looks like you haven't attached anything.", "refused"),
        ("Sure! I\u2019m unable to watch videos.", "refused"),
        ("a ball " * 1000, "too_long"),
    ],
)
def test_what_is_no_caption_is_a_reason(said: str, reason: str) -> None:
    assert cleaned(Answer(said)).reason == reason


@pytest.mark.parametrize(
    "said",
    [
        "a man says that he is sorry",
        "a sorry sight: a dog in the rain",
        "an aircraft can not be seen, it is only heard",
        "there is no sound but rain",
        "no sound is heard, then a dog barks",
        "no audio but the hum of a fridge",
        "here is a dog: it runs",
        "sure hands: a potter at a wheel",
        "it seems that nobody is at home",
        "a description of the city by a guide: traffic hums",
    ],
)
def test_a_caption_that_reads_like_a_refusal_stays(said: str) -> None:
    assert cleaned(Answer(said)) == Answer(said)


def test_prompts_are_files_with_digests(tmp_path: Path) -> None:
    packaged = [load_prompt(role) for role in ROLES]
    assert len({one.digest for one in packaged}) == len(ROLES)
    own = tmp_path / "p.txt"
    own.write_text(packaged[0].text + "\n\n")
    assert load_prompt("audio", own) == packaged[0]
    with pytest.raises(UsageError, match="missing"):
        load_prompt("audio", tmp_path / "missing.txt")
