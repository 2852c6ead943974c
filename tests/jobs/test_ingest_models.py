"""Models that measuring may use: all workers use the one that the command has, or none."""

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch

from avdata import config as configuration
from avdata.errors import UsageError
from avdata.jobs.engine import Engine
from avdata.jobs.ingest import MeasureSource, ingest
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.measure import speech
from avdata.pipeline.measure.child import MeasuringChild
from avdata.pipeline.measure.shots import ShotConfig
from avdata.pipeline.measure.source import IngestConfig
from tests.pipeline.media import Sound, plain, times_at, tone, write_movie

INLINE = Engine(inline=True)
CONFIG = IngestConfig(num_frames=17)


class Talker(torch.nn.Module):
    """With the interface of Silero VAD; hears speech in all that is loud."""

    @torch.jit.export
    def reset_states(self) -> None:
        """It has none."""

    def forward(self, chunk: torch.Tensor, rate: int) -> torch.Tensor:
        assert rate == 16_000
        return (chunk.abs().amax(dim=1, keepdim=True) > 0.01).float()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path of this process and its children, with a package in it."""
    site = tmp_path / "site"
    (site / "silero_vad" / "data").mkdir(parents=True)
    (site / "silero_vad" / "__init__.py").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # As where the real one is loaded.
        script = torch.jit.script(Talker())
    script.save(str(site / "silero_vad" / "data" / "silero_vad.jit"))
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
    speech._model.cache_clear()
    yield site
    speech._model.cache_clear()


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return write_movie(
        tmp_path / "a.mp4", [plain(90)] * 36, times_at(24, 36), Sound(tone(440, 1.5))
    )


def shares(root: Path) -> list[float | None]:
    return [
        None if clip.audio is None else clip.audio.speech_share for clip in Manifest(root).clips()
    ]


def test_speech_is_measured_once_its_model_is_there_and_by_no_other(
    tmp_path: Path, film: Path, installed: Path
) -> None:
    root, away = tmp_path / "manifest", tmp_path / "away"
    shutil.move(installed / "silero_vad", away)
    without = CONFIG.decided()
    assert (without.speech, without.fingerprint) == ("none", CONFIG.fingerprint)
    shutil.move(away, installed / "silero_vad")
    assert without.fingerprint != CONFIG.fingerprint
    ingest([film], root, CONFIG, engine=INLINE)
    assert shares(root) == [1.0]
    with_speech = configuration.from_plain(IngestConfig, Manifest(root).settings(), "settings")
    assert with_speech.speech == speech.speech_digest()
    shutil.move(installed / "silero_vad", away)
    for use in (
        lambda: ingest([film], root, with_speech, engine=INLINE),
        lambda: MeasureSource(root, with_speech, with_speech.fingerprint),
    ):
        with pytest.raises(
            UsageError, match=r"has no silero-vad; .*avdata\[speech\].* speech=none"
        ):
            use()
    with closing(MeasuringChild(with_speech)) as child, pytest.raises(UsageError, match="silero"):
        child.measure(film, "a.mp4")


@pytest.mark.usefixtures("installed")
def test_speech_of_another_model_is_refused() -> None:
    other = IngestConfig(speech="0" * 32)
    with pytest.raises(UsageError, match="another version of silero-vad"):
        other.require_models()
    assert (
        other.fingerprint != IngestConfig().fingerprint != IngestConfig(speech="none").fingerprint
    )
    with pytest.raises(ValueError, match="speech must be auto, none or"):
        IngestConfig(speech="yes")


def test_a_worker_of_another_version_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^\S+ has another version of avdata; install the same"):
        MeasureSource(tmp_path, IngestConfig(speech="none"), "0" * 32)


def test_a_network_is_looked_for_before_the_first_source(tmp_path: Path, film: Path) -> None:
    file, out = tmp_path / "net.onnx", tmp_path / "manifest"
    config = IngestConfig(num_frames=17, shots=ShotConfig(transnet=str(file)))
    with pytest.raises(UsageError, match="must be an ONNX file"):
        ingest([film], out, config, engine=INLINE)
    file.touch()
    before = config.fingerprint
    file.write_bytes(b"another")
    with pytest.raises(UsageError, match=r"onnxruntime|another file than that of the command"):
        MeasureSource(out, config, before)
    assert not out.exists()
    file.unlink()  # Who reads settings back needs no network.
    plain_settings = configuration.to_plain(config)
    assert configuration.from_plain(IngestConfig, plain_settings, "settings") == config
