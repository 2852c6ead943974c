import dataclasses
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float32
from torch import Tensor

from avdata import storage
from avdata.encoders.encoder import TextEncoder
from avdata.encoders.hashed_tokens import HashedTokens

ENCODER = HashedTokens("test", width=64, max_tokens=12)


def one(caption: str, encoder: HashedTokens = ENCODER) -> Float32[Tensor, "n d"]:
    (tokens,) = encoder.encode([caption])
    return tokens


def likeness(first: Float32[Tensor, " d"], second: Float32[Tensor, " d"]) -> float:
    return float(torch.cosine_similarity(first, second, dim=0))


def test_it_is_a_text_encoder() -> None:
    assert isinstance(ENCODER, TextEncoder)


@settings(deadline=None)
@given(st.lists(st.text(max_size=40), max_size=4))
def test_every_caption_has_a_token_and_at_most_so_many(captions: list[str]) -> None:
    encoded = ENCODER.encode(captions)
    assert len(encoded) == len(captions)
    for tokens in encoded:
        assert 1 <= tokens.shape[0] <= ENCODER.max_tokens
        assert tokens.shape[1] == ENCODER.width
        assert tokens.isfinite().all()


@settings(deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=4))
def test_a_caption_does_not_depend_on_its_company(captions: list[str]) -> None:
    for caption, tokens in zip(captions, ENCODER.encode(captions), strict=True):
        assert torch.equal(one(caption), tokens)


def test_a_token_is_a_word_or_a_mark() -> None:
    assert len(one("a ball, two hits")) == 5
    assert len(one("")) == 1
    assert len(one("word " * 100)) == ENCODER.max_tokens


def test_every_process_gives_the_same_vectors() -> None:
    code = (
        "from avdata import storage; from avdata.encoders.hashed_tokens import HashedTokens;"
        "t = HashedTokens('test', width=64, max_tokens=12).encode(['a Ball hits'])[0];"
        "print(storage.digest_bytes(t.numpy().tobytes()))"
    )
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert answer.strip() == storage.digest_bytes(one("a Ball hits").numpy().tobytes())


def test_a_word_means_the_same_in_every_place() -> None:
    """The difference of two tokens at one place is free of the place."""
    here = one("ball x")[0] - one("wall x")[0]
    there = one("x x ball")[2] - one("x x wall")[2]
    torch.testing.assert_close(here, there, atol=1e-5, rtol=1e-4)


def test_the_order_of_words_is_told() -> None:
    assert not torch.allclose(one("hit hit")[0], one("hit hit")[1])
    assert not torch.allclose(one("ball hits")[0], one("hits ball")[1])


def test_case_does_not_matter() -> None:
    assert torch.equal(one("A Ball"), one("a ball"))


def test_words_alike_have_vectors_alike() -> None:
    assert likeness(one("bouncing")[0], one("bounced")[0]) > likeness(
        one("bouncing")[0], one("silence")[0]
    )
    assert likeness(one("onset")[0], one("onsets")[0]) > 0.5


def test_tokens_have_about_unit_variance() -> None:
    tokens = one("one two three four five six seven eight nine ten eleven twelve")
    assert float(tokens.square().mean()) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize(
    "other",
    [dataclasses.replace(ENCODER, width=32), dataclasses.replace(ENCODER, max_tokens=11)],
)
def test_other_settings_have_another_digest(other: HashedTokens) -> None:
    assert other.spec.digest != ENCODER.spec.digest
    assert one("a ball", other).shape[1] == other.spec.width


def test_a_name_makes_another_spec_of_the_same_vectors() -> None:
    other = dataclasses.replace(ENCODER, name="other")
    assert other.spec != ENCODER.spec
    assert other.spec.digest == ENCODER.spec.digest
    assert torch.equal(one("a ball", other), one("a ball"))
