import shutil
from pathlib import Path

import pytest

from avdata.errors import CorruptShard, RunError, UsageError
from avdata.jobs.cli import app
from avdata.jobs.shell import run_app
from avdata.jobs.verify import verify
from avdata.pipeline.shards.dataset import Dataset
from tests.pipeline.test_shards_verify import written


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return written(tmp_path / "shards")


def flip(dataset: Dataset, number: int) -> tuple[str, str]:
    """One byte of a sample; answers its shard and key."""
    entry = dataset.samples("train")[number]
    tar = dataset.root / entry.tar
    data = bytearray(tar.read_bytes())
    data[entry.members["video.npy"].offset + 200] ^= 4
    tar.write_bytes(data)
    return entry.tar.removesuffix(".tar"), entry.key


def test_whole_shards_are_counted(dataset: Dataset) -> None:
    assert verify(dataset.root) == {
        "shards": len(dataset.shards),
        "samples": sum(shard["num_samples"] for shard in dataset.shards),
        "problems": 0,
    }


def test_each_problem_is_a_line_with_shard_sample_and_reason(
    dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    hurt = [flip(dataset, 0), flip(dataset, -1)]
    assert run_app(app, ["verify", str(dataset.root)]) == 1
    said = capsys.readouterr().err
    for shard, key in hurt:
        assert f"\n  {shard} {key}: video.npy: bytes differ from those that were written" in said


def test_what_others_wrote_is_refused_in_one_line(dataset: Dataset, tmp_path: Path) -> None:
    other = written(tmp_path / "other", seed=1)
    shutil.copyfile(other.root / "dataset.json", dataset.root / "dataset.json")
    with pytest.raises(CorruptShard, match=r"index\.json: missing or not the one listed"):
        verify(dataset.root)


def test_lost_indices_are_made_again_where_asked(dataset: Dataset) -> None:
    index = dataset.root / f"{dataset.shards[0]['name']}.index.json"
    before = index.read_bytes()
    index.unlink()
    with pytest.raises(CorruptShard, match=index.name):
        verify(dataset.root)
    assert verify(dataset.root, rebuild=True)["rebuilt"] == 1
    assert index.read_bytes() == before
    assert verify(dataset.root, rebuild=True)["rebuilt"] == 0


def test_an_index_made_again_vouches_for_no_damage(dataset: Dataset) -> None:
    shard, _ = flip(dataset, 0)
    (dataset.root / f"{shard}.index.json").unlink()
    with pytest.raises(RunError, match="not the tar that was listed"):
        verify(dataset.root, rebuild=True)


def test_a_manifest_has_no_indices_to_make_again(tmp_path: Path) -> None:
    (tmp_path / "clips.parquet").touch()
    with pytest.raises(UsageError, match="--rebuild is for shards"):
        verify(tmp_path, rebuild=True)
