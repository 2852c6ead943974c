"""What the joint model and its twin have in common."""

from pathlib import Path

from avdata.trainer.metrics import read_metrics
from avdata.trainer.train import train
from tests.trainer.shards import write_shards
from tests.trainer.test_exact import made


def test_joint_model_and_twin_can_be_compared_line_by_line(tmp_path: Path) -> None:
    """Clips, order, video's noise, times and dropped captions are the same; another seed's not."""
    dataset = write_shards(tmp_path / "shards")
    names = ("step", "epoch", "batch_digest", "draws_digest", "seats_by_time")
    told = {}
    for name, changes in (
        ("joint", {}),
        ("twin", {"mode": "t2v"}),
        ("other noise", {"caption_dropout": 0.9}),
        ("other seed", {"seed": 1}),
    ):
        run = made(tmp_path / name, dataset, steps=3, **changes)
        train(run)
        told[name] = [[line[key] for key in names] for line in read_metrics(run.metrics)]
    assert told["joint"] == told["twin"]
    assert [line[2] for line in told["joint"]] == [line[2] for line in told["other noise"]]
    assert told["joint"] != told["other noise"]
    assert all(a[2:4] != b[2:4] for a, b in zip(told["joint"], told["other seed"], strict=True))
