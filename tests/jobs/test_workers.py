import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from avdata.encoders.endpoint import Endpoint
from avdata.jobs.ask import AskAbout, ingested
from avdata.jobs.caption_config import CaptionConfig
from avdata.jobs.embed import EmbedClips
from avdata.jobs.encode import EncodeConfig, EncodeShard, planned
from avdata.jobs.engine import Worker
from avdata.jobs.semantics_config import SemanticsConfig
from avdata.pipeline.caption_answers import Answers
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.measure.source import IngestConfig

NOBODY = Endpoint("http://127.0.0.1:9/v1", "m", max_retries=1, max_wait_s=0.01)
ENCODE = EncodeConfig(height=64, width=96)


def asks(out: Path, cut: IngestConfig) -> Worker:
    return AskAbout("video", NOBODY, CaptionConfig(video=NOBODY), cut, Answers(out, "made so"))


def embeds(_: Path, cut: IngestConfig) -> Worker:
    return EmbedClips(SemanticsConfig(device="cpu"), cut, {})


def encodes(out: Path, _: IngestConfig) -> Worker:
    return EncodeShard(out, ENCODE)


@pytest.mark.parametrize("make", [asks, embeds, encodes])
def test_a_worker_is_handed_its_clips_and_reads_no_manifest(
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path, IngestConfig], Worker],
) -> None:
    """Or each would hold all clips there are."""
    cut, kept = ingested(Manifest(manifest)), Manifest(manifest).clips("keep")[:1]
    plans = planned(manifest, kept, ENCODE, ENCODE.encoders.specs())

    def read(*_: object) -> None:
        raise AssertionError("a worker reads the manifest")

    monkeypatch.setattr(Manifest, "table", read)
    worker = make(tmp_path, cut)
    item = {"clips": pickle.dumps(kept), "plan": pickle.dumps(plans[0])}
    assert worker(item)["seen"] == 1
