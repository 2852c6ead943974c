from pathlib import Path

import pytest

from avdata.jobs.cli import app
from avdata.jobs.shell import run_app
from avdata.trainer.metrics import read_metrics
from tests.s3 import needs_server
from tests.trainer.shards import write_shards

pytestmark = needs_server
SIZES = ["head_dim=16", "video_heads=3", "video_layers=2", "video_ffn=32", "audio_heads=1"]
LAYERS = ["audio_double_layers=0", "audio_single_layers=2", "num_joint=1", "max_video_text=5"]
SETTINGS = [f"model.{one}" for one in (*SIZES, *LAYERS)] + ["steps=3", "batch_size=4", "device=cpu"]


def losses(shards: object, out: Path) -> list[float]:
    options = [word for one in SETTINGS for word in ("--set", one)]
    with pytest.raises(SystemExit, match="0"):
        run_app(app, ["train", str(shards), "--out", str(out), *options])
    return [line["loss"] for line in read_metrics(out / "metrics.jsonl")]


def test_a_run_on_shards_in_a_bucket_is_that_on_a_folder(s3_bucket: Path, tmp_path: Path) -> None:
    near = write_shards(tmp_path / "near").root
    for path in Path(near).rglob("*"):
        if path.is_file():
            (s3_bucket / path.relative_to(near)).write_bytes(path.read_bytes())
    assert losses(s3_bucket, tmp_path / "b") == losses(near, tmp_path / "a")
