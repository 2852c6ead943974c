import os
from pathlib import Path

import pytest

from avdata.jobs.engine import Engine
from avdata.jobs.ingest import ingest
from avdata.pipeline.check import check_manifest
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.measure.source import IngestConfig

FOLDER = os.environ.get("AVDATA_REAL_MEDIA")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        FOLDER is None, reason="AVDATA_REAL_MEDIA names no folder with broken/ and train/"
    ),
]
INLINE = Engine(inline=True)


def media(kind: str) -> Path:
    assert FOLDER is not None
    return Path(FOLDER) / kind


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    out = tmp_path_factory.mktemp("manifest")
    return ingest([media("broken")], out, IngestConfig(), engine=INLINE)


def test_every_broken_file_gives_clips_or_a_reason_and_never_both(broken: Manifest) -> None:
    files = {str(path.resolve()) for path in media("broken").iterdir()}
    used = {uri for clip in broken.clips() for uri in clip.source.uris}
    refused = {row.uri for row in broken.quarantined()}
    assert used | refused == files
    assert used & refused == set()
    assert used
    assert check_manifest(broken) == []


def test_the_reason_says_what_is_wrong(broken: Manifest) -> None:
    reasons = {Path(row.uri).name: row.reason for row in broken.quarantined()}
    assert reasons["zero_bytes.webm"] == "empty_file"
    assert reasons["git_lfs_pointer_named.mp4"] == "not_media"
    assert all(reasons.values())
