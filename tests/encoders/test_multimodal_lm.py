"""Captions by transformers, on tiny random models of the library's own classes."""

import importlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avdata.encoders.captioner import Captioner, Question
from avdata.encoders.multimodal_lm import MultimodalLM, OpenMultimodalLM
from avdata.errors import RunError, UsageError
from tests.encoders.captioners import ENDS, llava, omni, qwen2_audio

CPU = torch.device("cpu")
MAKE = {"llava": llava, "qwen2_audio": qwen2_audio, "omni": omni}
NAMES = pytest.mark.parametrize("name", MAKE)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Folders of models, and the models that were written there."""
    root = tmp_path_factory.mktemp("captioners")
    return root, {name: make(root / name) for name, make in MAKE.items()}


@pytest.fixture(scope="module")
def models(made: tuple[Path, dict[str, Any]]) -> Path:
    return made[0]


def opened(models: Path, name: str, **settings: Any) -> OpenMultimodalLM:
    return MultimodalLM(str(models / name), **{"max_tokens": 24} | settings).open(CPU)


def question(name: str, number: int) -> Question:
    """What this model reads of another clip each."""
    g = np.random.default_rng(number)
    noisy = g.integers(0, 200, (1, 1, 1, 3)) + g.integers(0, 56, (2, 40, 60, 3))
    heard = 0.3 * np.sin(np.arange(16_000) * (0.1 + 0.1 * number)).astype(np.float32)
    return Question(
        f"clip-{number}",
        "what is it" + "?" * number,  # Of different lengths, so that a batch is padded.
        None if name == "qwen2_audio" else noisy.astype(np.uint8),
        None if name == "llava" else heard,
    )


@NAMES
def test_it_says_what_the_librarys_own_pipeline_says(
    made: tuple[Path, dict[str, Any]], name: str
) -> None:
    root, own = made
    captioner = opened(root, name)
    assert isinstance(captioner, Captioner)
    image: Any = importlib.import_module("PIL.Image")
    library: Any = importlib.import_module("transformers")
    processor = library.AutoProcessor.from_pretrained(root / name)
    model = getattr(own[name], "thinker", own[name])
    pipeline = library.pipeline("any-to-any", model=model, processor=processor)
    said = []
    for number in range(4):
        one = question(name, number)
        content: list[dict[str, Any]] = []
        if one.frames is not None:
            content += [{"type": "image", "image": image.fromarray(each)} for each in one.frames]
        if one.samples is not None:
            content.append({"type": "audio", "audio": one.samples})
        asked = [{"role": "user", "content": [*content, {"type": "text", "text": one.prompt}]}]
        found = pipeline(asked, return_full_text=False, max_new_tokens=24)
        text = found[0]["generated_text"]
        answer = captioner.ask(one)
        if answer.text is None:
            assert (answer.reason, text[-1] in ENDS) == ("cut_off", False)
        else:
            assert text[-1] in ENDS
            assert answer.text.split() == text[:-1].split()
        said.append(answer)
    assert len(set(said)) > 1  # It depends on what is shown.


@NAMES
def test_whoever_asks_together_is_answered_as_alone(models: Path, name: str) -> None:
    questions = [question(name, number) for number in range(9)]
    alone = [opened(models, name).ask(one) for one in questions]
    captioner = opened(models, name, batch_size=4)
    sizes: list[int] = []
    generate = captioner._model.generate

    def counted(**given: torch.Tensor) -> torch.Tensor:
        sizes.append(len(given["input_ids"]))
        found: torch.Tensor = generate(**given)
        return found

    captioner._model.generate = counted
    with ThreadPoolExecutor(9) as pool:
        assert list(pool.map(captioner.ask, questions)) == alone
    assert sum(sizes) == 9
    assert max(sizes) == 4


def test_what_breaks_reaches_all_that_wait(models: Path) -> None:
    captioner = opened(models, "llava", batch_size=4)

    def broken(**_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of memory")

    captioner._model.generate = broken
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(captioner.ask, question("llava", number)) for number in range(6)]
    assert {str(one.exception()) for one in asked} == {"out of memory"}


def test_an_answer_without_end_is_none(models: Path) -> None:
    answers = [opened(models, "llava", max_tokens=1).ask(question("llava", k)) for k in range(6)]
    assert {(one.text, one.reason) for one in answers} <= {("", None), (None, "cut_off")}
    assert any(one.reason == "cut_off" for one in answers)


def test_a_model_is_asked_only_what_it_reads(models: Path) -> None:
    both, seen = question("omni", 0), question("llava", 0)
    with pytest.raises(UsageError, match=r"llava: this model reads image, text and no audio"):
        opened(models, "llava").ask(both)
    with pytest.raises(UsageError, match="and no image"):
        opened(models, "qwen2_audio").ask(seen)
    with pytest.raises(UsageError, match="set sample_rate=16000"):
        opened(models, "omni").ask(replace(both, sample_rate=44_100))


def test_its_identity_is_that_of_all_an_answer_depends_on(models: Path, tmp_path: Path) -> None:
    llava(tmp_path / "llava")
    one, same = MultimodalLM(str(models / "llava")), MultimodalLM(str(tmp_path / "llava"))
    assert one.identity() == same.identity()
    assert replace(one, batch_size=2).identity() == one.identity()
    assert replace(one, max_tokens=2).identity() != one.identity()
    template = tmp_path / "llava" / "chat_template.jinja"
    template.write_text(template.read_text() + "!")
    assert same.identity() != one.identity()
    llava(tmp_path / "other", seed=1)
    assert MultimodalLM(str(tmp_path / "other")).identity() != one.identity()


def test_nothing_is_downloaded_unasked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"give its revision.*hf download Qwen/"):
        MultimodalLM("Qwen/Qwen2.5-Omni-7B").identity()
    pinned = MultimodalLM("nobody/nothing", revision="0" * 40)
    with pytest.raises(UsageError, match="not on this machine"):
        pinned.identity()
    with pytest.raises(UsageError, match="no such folder"):
        MultimodalLM(str(tmp_path / "none")).open(CPU)


def test_a_model_without_chat_template_or_with_other_weights_is_refused(tmp_path: Path) -> None:
    llava(tmp_path / "llava")
    template = tmp_path / "llava" / "chat_template.jinja"
    text = template.read_text()
    template.unlink()
    with pytest.raises(UsageError, match="no chat template"):
        MultimodalLM(str(tmp_path / "llava")).open(CPU)
    template.write_text(text)
    omni(tmp_path / "omni")
    (tmp_path / "omni" / "model.safetensors").rename(tmp_path / "llava" / "model.safetensors")
    with pytest.raises(UsageError, match="not of this model"):
        MultimodalLM(str(tmp_path / "llava")).open(CPU)


def test_a_package_that_a_processor_lacks_is_named_with_its_extra(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*_: object, **__: object) -> None:
        raise ImportError("Qwen2VLVideoProcessor requires the Torchvision library")

    library: Any = importlib.import_module("transformers")
    monkeypatch.setattr(library.AutoProcessor, "from_pretrained", lacking)
    with pytest.raises(UsageError, match=r"requires the Torchvision.*'avdata\[encoders\]'"):
        opened(models, "omni")


def test_a_vocabulary_without_a_token_to_pad_with_still_answers_questions_of_different_lengths(
    models: Path, tmp_path: Path
) -> None:
    root = tmp_path / "llava"
    shutil.copytree(models / "llava", root)
    library: Any = importlib.import_module("transformers")
    processor = library.AutoProcessor.from_pretrained(root)
    processor.tokenizer.pad_token, processor.tokenizer.eos_token = None, "a"
    processor.save_pretrained(root)
    assert library.AutoProcessor.from_pretrained(root).tokenizer.pad_token is None
    captioner = MultimodalLM(str(root), max_tokens=24, batch_size=4).open(CPU)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(captioner.ask, [question("llava", k) for k in range(4)]))
    assert together == [captioner.ask(question("llava", k)) for k in range(4)]


def test_too_little_memory_says_what_to_ask_for_less_of(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captioner = opened(models, "llava")

    def full(**_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(captioner._model, "generate", full)
    with pytest.raises(RunError, match="lower its batch_size"):
        captioner.ask(question("llava", 0))
