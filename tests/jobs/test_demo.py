import dataclasses
from pathlib import Path

import pytest

from avdata.jobs.demo import DemoConfig, demo
from avdata.pipeline.measure.source import IngestConfig
from avdata.pipeline.shards.plan import PlanSettings
from avdata.pipeline.world.corpus import WorldConfig
from avdata.trainer.flow import SamplerConfig
from avdata.trainer.metrics import read_metrics
from tests.trainer.tiny import CONFIG

BASE = DemoConfig()
SMALL = dataclasses.replace(
    BASE,
    world=WorldConfig(num_videos=4, kinds=("bounce", "slide"), height=96, width=160, seconds=2.5),
    ingest=IngestConfig(num_frames=17),
    encode=dataclasses.replace(
        BASE.encode, height=64, width=96, plan=PlanSettings(val_fraction=0.3)
    ),
    train=dataclasses.replace(
        BASE.train, model=CONFIG, steps=3, batch_size=2, val_every=3, val_samples=1, device="cpu"
    ),
    sampler=SamplerConfig(steps=2),
    num_samples=1,
    processes=1,
)


def times(root: Path) -> dict[str, int]:
    """When each file was written that is costly to make."""
    kinds = ("corpus/*", "manifest/parts/*", "shards/*/*", "t*/checkpoints/*/*", "t*/metrics.jsonl")
    return {
        str(path.relative_to(root)): path.stat().st_mtime_ns
        for kind in kinds
        for path in root.glob(kind)
    }


@pytest.mark.filterwarnings("ignore")  # Ray warns of itself.
def test_a_demo_goes_from_a_made_up_corpus_to_a_report_and_makes_nothing_twice(
    tmp_path: Path,
) -> None:
    told: list[str] = []
    found = demo(tmp_path, [], SMALL, told.append)
    assert Path(found["report"]).read_text().startswith("<!")
    assert found["runs"].keys() == {"t2av", "t2v"}
    assert found["runs"]["t2av"]["loss_audio_last"] > 0
    assert "loss_audio_last" not in found["runs"]["t2v"]
    seen = [
        [line["batch_digest"] for line in read_metrics(tmp_path / mode / "metrics.jsonl")]
        for mode in ("t2av", "t2v")
    ]
    assert seen[0] == seen[1]
    assert len(seen[0]) == SMALL.train.steps
    for mode in ("t2av", "t2v"):
        assert len(list((tmp_path / mode / "samples").glob("*.mp4"))) == 1
    before = times(tmp_path)
    assert len({name.split("/")[0] for name in before}) == 5
    assert demo(tmp_path, [], SMALL, told.append) == found
    assert times(tmp_path) == before
    half = len(told) // 2
    assert told[:half] == told[half:]
