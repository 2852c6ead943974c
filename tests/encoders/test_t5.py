import dataclasses
import json
import shutil
import sys
from pathlib import Path

import pytest
import sentencepiece
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.normalizers import Lowercase
from torch import Tensor

from avdata.encoders.encoder import TextEncoder
from avdata.encoders.t5 import OpenT5, T5Text, UMT5Text
from avdata.errors import UsageError
from tests.encoders.checkpoints import Model, t5, transformers, umt5

CPU = torch.device("cpu")
CAPTIONS = ["a ball", "a ball bounces twice, then rolls away.", "", "thud"]
LENGTHS = [3, 34, 1, 6]
CLASS = "T5TokenizerFast"
"""Of the tokenizers that Wan and FLAN-T5 are published with."""
KINDS = {"umt5": (umt5, UMT5Text), "t5": (t5, T5Text)}


@pytest.fixture(scope="module", params=list(KINDS))
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Model, Path, OpenT5]:
    """The library's encoder, the folder of its tokenizer, and ours from the files."""
    folder = tmp_path_factory.mktemp(request.param)
    make, config = KINDS[request.param]
    model = make(folder)
    below = folder / "tokenizer"
    return model.encoder, below if below.exists() else folder, config(str(folder)).open(CPU)


def padded_by_the_library(
    model: Model, tokenizer: Path, captions: list[str]
) -> list[Float[Tensor, "n d"]]:
    """One padded batch with its mask, then cut: as the pipelines of Wan and TangoFlux do."""
    words = transformers.AutoTokenizer.from_pretrained(str(tokenizer), local_files_only=True)
    batch = words(captions, padding="longest", return_tensors="pt")
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    return [one[:count] for one, count in zip(states, batch.attention_mask.sum(dim=1), strict=True)]


def test_it_is_a_text_encoder(made: tuple[Model, Path, OpenT5]) -> None:
    assert isinstance(made[2], TextEncoder)


def test_embeddings_are_those_of_the_library_without_the_padding(
    made: tuple[Model, Path, OpenT5],
) -> None:
    model, tokenizer, encoder = made
    found = encoder.encode(CAPTIONS)
    assert [len(one) for one in found] == LENGTHS
    for ours, theirs in zip(found, padded_by_the_library(model, tokenizer, CAPTIONS), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_a_caption_does_not_depend_on_its_company(made: tuple[Model, Path, OpenT5]) -> None:
    _, _, encoder = made
    for caption, together in zip(CAPTIONS, encoder.encode(CAPTIONS), strict=True):
        assert torch.equal(encoder.encode([caption])[0], together)


def test_a_long_caption_is_cut_and_still_ends(made: tuple[Model, Path, OpenT5]) -> None:
    model, tokenizer, encoder = made
    most, long = encoder.spec.max_tokens, "a ball, " * encoder.spec.max_tokens
    words = transformers.AutoTokenizer.from_pretrained(str(tokenizer), local_files_only=True)
    tokens = [*words(long).input_ids[: most - 1], words.eos_token_id]
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([tokens])).last_hidden_state[0]
    torch.testing.assert_close(encoder.encode([long])[0], expected, atol=1e-5, rtol=0)


def test_no_captions_are_no_embeddings(made: tuple[Model, Path, OpenT5]) -> None:
    assert made[2].encode([]) == []


def test_other_settings_are_another_spec(tmp_path: Path) -> None:
    umt5(tmp_path)
    plain = UMT5Text(str(tmp_path))
    half = dataclasses.replace(plain, dtype="bfloat16")
    short = dataclasses.replace(plain, max_tokens=8)
    assert len({one.spec().digest for one in (plain, half, short)}) == 3
    assert short.spec().max_tokens == 8
    assert len(short.open(CPU).encode(["a ball bounces"])[0]) == 8
    near, exact = half.open(CPU).encode(["a ball"])[0], plain.open(CPU).encode(["a ball"])[0]
    torch.testing.assert_close(near, exact, atol=0.1, rtol=0.1)


def test_room_for_a_token_and_an_end_is_needed() -> None:
    with pytest.raises(ValueError, match="max_tokens must be 2 or more, not 1"):
        T5Text("anywhere", max_tokens=1)


def test_a_tokenizer_is_taken_as_it_was_published(tmp_path: Path) -> None:
    """With its normaliser, which T5's own class in transformers 5 would leave out."""
    umt5(tmp_path)
    file, about = (tmp_path / "tokenizer" / f"tokenizer{end}.json" for end in ("", "_config"))
    pieces = Tokenizer.from_file(str(file))
    pieces.normalizer = Lowercase()
    pieces.save(str(file))
    about.write_text(json.dumps({**json.loads(about.read_text()), "tokenizer_class": CLASS}))
    encoder = UMT5Text(str(tmp_path)).open(CPU)
    shouted, said = encoder.encode(["A BALL", "a ball"])
    assert torch.equal(shouted, said)


def test_a_tokenizer_of_sentencepiece_alone_will_do(tmp_path: Path) -> None:
    """Older repositories have no tokenizer.json."""
    t5(tmp_path)
    before = T5Text(str(tmp_path)).spec().digest
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the quick brown fox jumps over the lazy dog", "a ball hits"]),
        model_prefix=str(tmp_path / "spiece"),
        vocab_size=33,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    for name in ("tokenizer.json", "tokenizer_config.json", "spiece.vocab"):
        (tmp_path / name).unlink()
    encoder = T5Text(str(tmp_path)).open(CPU)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spiece.model"))
    assert len(encoder.encode(["a ball hits"])[0]) == len(pieces.encode("a ball hits")) + 1
    assert encoder.spec.digest != before


def test_a_tokenizer_is_needed(tmp_path: Path) -> None:
    umt5(tmp_path)
    shutil.rmtree(tmp_path / "tokenizer")
    with pytest.raises(UsageError, match=r"no tokenizer\.json or spiece\.model.*tokenizer/\*"):
        UMT5Text(str(tmp_path)).open(CPU)


def test_other_weights_beside_the_encoders_are_refused(tmp_path: Path) -> None:
    """Its decoder and its head, which it is published with, are not."""
    t5(tmp_path)
    file = tmp_path / "model.safetensors"
    kept = load_file(file)
    assert {"lm_head.weight", "decoder.final_layer_norm.weight"} <= set(kept)
    T5Text(str(tmp_path)).open(CPU)
    save_file({**kept, "adapter.weight": torch.zeros(2)}, file, metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"1 unexpected weights \(adapter\.weight"):
        T5Text(str(tmp_path)).open(CPU)


def test_one_kind_is_not_the_other(tmp_path: Path) -> None:
    umt5(tmp_path)
    with pytest.raises(UsageError, match="model_type is 'umt5', expected 't5'"):
        T5Text(str(tmp_path), subfolder="text_encoder").open(CPU)


def test_without_transformers_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    t5(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r"pip install 'avdata\[encoders\]'"):
        T5Text(str(tmp_path)).open(CPU)
