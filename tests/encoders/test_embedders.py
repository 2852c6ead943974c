"""open_clip and ClapModel on tiny random checkpoints of their own making."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avdata.encoders.clap import Clap, OpenClap
from avdata.encoders.clip import OpenClip, OpenedClip
from avdata.encoders.embedder import AudioText, ImageText
from avdata.errors import UsageError
from tests.encoders.embedders import clap_model, open_clip_model

CPU = torch.device("cpu")
Items = torch.Tensor | list[torch.Tensor] | list[str]
Embed = Callable[..., torch.Tensor]
TEXTS = ["a ball", "a dog barks", "rain"]
# What the libraries warn of while they are imported.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    pytest.importorskip("open_clip", reason="needs the extra clip")
    folder = tmp_path_factory.mktemp("models") / "clip"
    return folder, open_clip_model(folder)


@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("models") / "clap"
    return folder, clap_model(folder)


def frames(count: int = 3) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 48, 80, 3), generator=g, dtype=torch.uint8)


def sounds(count: int = 3, seconds: float = 1.0) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.rand((count, round(seconds * 48_000)), generator=g) - 0.5


def assert_unit_and_alone(embed: Embed, items: Items, width: int) -> torch.Tensor:
    """Of unit norm, and each the same in company as alone."""
    together = embed(items)
    assert together.shape == (len(items), width)
    assert together.dtype == torch.float32
    torch.testing.assert_close(together.norm(dim=1), torch.ones(len(items)))
    alone = torch.cat([embed(items[k : k + 1]) for k in range(len(items))])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-4)
    return together


def test_clip_gives_what_open_clip_gives(clip: tuple[Path, Any]) -> None:
    folder, model = clip
    embedder = OpenClip(str(folder)).open(CPU)
    assert isinstance(embedder, ImageText)
    pictures = assert_unit_and_alone(embedder.images, list(frames()), 16)
    texts = assert_unit_and_alone(embedder.texts, TEXTS, 16)
    library: Any = importlib.import_module("open_clip")
    transform = library.image_transform(
        32, is_train=False, mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28)
    )
    image: Any = importlib.import_module("PIL.Image")
    given = torch.stack([transform(image.fromarray(one.numpy())) for one in frames()])
    with torch.no_grad():
        own = model.encode_image(given, normalize=True)
        words = model.encode_text(library.tokenize(TEXTS), normalize=True)
    torch.testing.assert_close(pictures, own)
    torch.testing.assert_close(texts, words)


def test_clap_gives_what_the_library_gives(clap: tuple[Path, Any]) -> None:
    folder, model = clap
    embedder = Clap(str(folder)).open(CPU)
    assert isinstance(embedder, AudioText)
    heard = assert_unit_and_alone(embedder.sounds, sounds(), 16)
    assert_unit_and_alone(embedder.texts, TEXTS, 16)
    transformers: Any = importlib.import_module("transformers")
    features = transformers.ClapFeatureExtractor()(
        [one.numpy() for one in sounds()],
        sampling_rate=48_000,
        truncation="rand_trunc",
        return_tensors="pt",
    )
    with torch.no_grad():
        own = model.get_audio_features(**features)
    own = own if isinstance(own, torch.Tensor) else own.pooler_output
    own = torch.nn.functional.normalize(own, dim=-1)
    torch.testing.assert_close(heard, own, rtol=1e-4, atol=1e-5)


def test_texts_of_clap_go_in_batches(
    clap: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = Clap(str(clap[0])).open(CPU)
    texts = ["rain " * (k * 7 % 11) + "abcdefg"[k % 7] for k in range(70)]
    own, calls = embedder._model.get_text_features, list[int]()

    def counted(**given: torch.Tensor) -> Any:
        calls.append(len(given["input_ids"]))
        return own(**given)

    monkeypatch.setattr(embedder._model, "get_text_features", counted)
    assert_unit_and_alone(embedder.texts, texts, 16)
    together = calls[: -len(texts)]
    assert len(together) <= 5
    assert sum(together) == len(texts)


def test_a_fused_clap_does_nothing_by_chance(tmp_path: Path) -> None:
    clap_model(tmp_path / "clap", fused=True)
    embedder = Clap(str(tmp_path / "clap")).open(CPU)
    assert_unit_and_alone(embedder.sounds, sounds(), 16)
    torch.testing.assert_close(embedder.sounds(sounds()), embedder.sounds(sounds()))


def test_of_a_long_sound_the_middle_is_taken_and_not_by_chance(clap: tuple[Path, Any]) -> None:
    embedder = Clap(str(clap[0])).open(CPU)
    long = sounds(1, 12.0)
    middle = embedder.sounds(long[:, 48_000:-48_000])
    torch.testing.assert_close(embedder.sounds(long), middle)


def test_the_digest_is_of_the_weights(clip: tuple[Path, Any], tmp_path: Path) -> None:
    open_clip_model(tmp_path / "other", seed=1)
    one, other = OpenClip(str(clip[0])).spec(), OpenClip(str(tmp_path / "other")).spec()
    assert one.width == other.width == 16
    assert one.digest != other.digest
    assert OpenClip(str(clip[0])).spec() == one


def test_missing_weights_say_how_to_get_them(tmp_path: Path) -> None:
    for config in (OpenClip(str(tmp_path)), Clap(str(tmp_path))):
        with pytest.raises(UsageError, match="hf download laion/"):
            config.spec()


def test_clap_without_its_features_is_refused(tmp_path: Path) -> None:
    clap_model(tmp_path / "clap")
    before = Clap(str(tmp_path / "clap")).spec().digest
    file = tmp_path / "clap" / "preprocessor_config.json"
    file.write_text(file.read_text().replace("14000", "12000"))
    assert Clap(str(tmp_path / "clap")).spec().digest != before
    file.unlink()
    with pytest.raises(UsageError, match=r"no preprocessor_config\.json"):
        Clap(str(tmp_path / "clap")).spec()


def test_a_missing_package_says_what_to_install(
    clip: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(UsageError, match=r"avdata\[clip\]"):
        OpenedClip(OpenClip(str(clip[0])), CPU)


def test_a_tokenizer_without_words_is_refused(tmp_path: Path) -> None:
    clap_model(tmp_path / "clap")
    file = tmp_path / "clap" / "tokenizer.json"
    plain = file.read_text()
    assert '"pre_tokenizer"' in plain
    transformers: Any = importlib.import_module("transformers")
    from tokenizers import Tokenizer

    empty = Tokenizer.from_str(plain)
    empty.normalizer = importlib.import_module("tokenizers.normalizers").Replace("a dog barks", "")
    transformers.PreTrainedTokenizerFast(tokenizer_object=empty).save_pretrained(file.parent)
    with pytest.raises(UsageError, match="knows no words"):
        OpenClap(Clap(str(file.parent)), CPU)


def test_silence_has_an_embedding_too(clap: tuple[Path, Any]) -> None:
    found = Clap(str(clap[0])).open(CPU).sounds(torch.zeros(1, 48_000))
    assert np.isfinite(found.numpy()).all()
