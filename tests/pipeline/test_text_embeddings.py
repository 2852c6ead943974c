from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import UInt8
from numpy import ndarray
from torch import Tensor

from avdata.encoders.embedder import EmbeddingSpec, ImageText
from avdata.pipeline import text_embeddings
from avdata.pipeline.text_embeddings import TextEmbeddings
from tests.pipeline.test_semantics import unit

WIDTH = 8


class Told(ImageText):
    """Embeds the texts that it was told of, and notes what it is asked, call by call."""

    def __init__(self, known: dict[str, ndarray]) -> None:
        self.known, self.asked = known, list[list[str]]()

    @property
    def spec(self) -> EmbeddingSpec:
        return EmbeddingSpec("told", "0", WIDTH)

    @property
    def scale(self) -> float:
        return 1.0

    def images(self, frames: list[UInt8[Tensor, "_ _ 3"]]) -> Tensor:
        raise NotImplementedError

    def texts(self, texts: list[str]) -> Tensor:
        self.asked.append(texts)
        return torch.from_numpy(np.stack([self.known[text] for text in texts]))


def told(count: int, seed: int = 0) -> Told:
    rows = unit(np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32))
    return Told({f"text {k}": row for k, row in enumerate(rows)})


def store(root: Path, model: Told) -> TextEmbeddings:
    return TextEmbeddings.of(root, "picture", model.spec)


def test_what_is_read_is_what_the_model_said_however_often_a_text_comes(tmp_path: Path) -> None:
    model = told(20)
    texts = [*model.known, *reversed(model.known)]
    kept = store(tmp_path, model)
    kept.add(texts, model, 6)
    assert [len(one) for one in model.asked] == [6, 6, 6, 2]
    places, rows = kept.read(["of nobody", *texts])
    assert places == list(range(1, 41))
    np.testing.assert_allclose(rows, [model.known[text] for text in texts], atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    kept.add(texts, model, 6)
    assert len(model.asked) == 4


def test_a_run_that_was_killed_goes_on_with_what_lacks_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_embeddings, "TEXTS", 5)
    model = told(18)
    texts = list(model.known)
    store(tmp_path / "whole", model).add(texts, model, 5)
    whole = files(tmp_path / "whole")

    class Killed(Told):
        def texts(self, texts: list[str]) -> Tensor:
            if len(self.asked) == 2:
                raise KeyboardInterrupt
            return super().texts(texts)

    kept = store(tmp_path / "part", model)
    with pytest.raises(KeyboardInterrupt):
        kept.add(texts, Killed(model.known), 5)
    assert len(files(tmp_path / "part")) == 2
    model.asked.clear()
    kept.add(texts, model, 5)
    assert [text for one in model.asked for text in one] == texts[10:]
    assert files(tmp_path / "part") == whole


def test_another_model_has_its_own(tmp_path: Path) -> None:
    one = told(3)
    store(tmp_path, one).add(list(one.known), one, 5)
    other = TextEmbeddings.of(tmp_path, "picture", EmbeddingSpec("other", "1", WIDTH))
    assert other.read(list(one.known))[0] == []
    sound = TextEmbeddings.of(tmp_path, "sound", one.spec)
    assert sound.read(list(one.known))[0] == []


def files(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.rglob("*.parquet")}
