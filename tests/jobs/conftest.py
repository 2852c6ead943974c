"""What several jobs are tested on and is slow to make."""

from pathlib import Path

import pytest

from avdata.jobs.engine import Engine
from avdata.jobs.ingest import ingest
from avdata.pipeline.measure.source import IngestConfig
from avdata.pipeline.shards.dataset import Dataset, open_dataset
from tests.jobs.films import encode, settings, write_manifest, write_models


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("films")
    return write_manifest(root / "raw", root / "manifest")


@pytest.fixture(scope="module")
def measured(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of a module's own `raw`; tests work on copies of it."""
    root = tmp_path_factory.mktemp("measured")
    ingest([raw], root, IngestConfig(num_frames=17), engine=Engine(inline=True))
    return root


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def learned(manifest: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Shards of encoders that have weights."""
    out = tmp_path_factory.mktemp("learned")
    assert encode(manifest, out, *settings(models)) == 0
    return open_dataset(out)
