import shutil
from pathlib import Path

import pytest

from avdata import storage
from avdata.encoders.choice import EncodersConfig
from avdata.errors import CorruptShard, RunError, UsageError
from avdata.jobs.cli import app
from avdata.jobs.shell import run_app
from avdata.jobs.verify import verify
from avdata.pipeline.shards.dataset import Dataset
from tests.pipeline.test_guard import caption, kept, moved
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


def test_what_is_fetched_again_has_the_bound_that_it_was_encoded_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = written(tmp_path / "shards", EncodersConfig().specs())
    for name, answer in (("copies.is_remote", True), ("copies.blocks", [bytes(4096)])):
        monkeypatch.setattr(f"avdata.pipeline.sources.{name}", lambda _, answer=answer: answer)
    monkeypatch.setattr("avdata.pipeline.shards.identity.exists", lambda _: True)
    file = dataset.root / "dataset.json"
    plain = storage.read_json(file)
    for bound, said in ((1e-6, "over max_copies_gib = 1e-06"), (1e-5, "its digest is")):
        plain["provenance"] = {"config": {"max_copies_gib": bound}}
        storage.write_json(file, plain)
        with pytest.raises(RunError, match=f"cannot be read again: .*{said}"):
            verify(dataset.root, again=1)


def test_captions_of_other_clips_are_a_problem_of_a_manifest(tmp_path: Path) -> None:
    manifest, clips = kept(tmp_path)
    assert verify(tmp_path)["captions compared with clips"] == 2 * len(clips)
    caption(manifest, moved(clips, 1))
    with pytest.raises(
        RunError, match=r"2 problems\n  video captions do not belong to their clips"
    ):
        verify(tmp_path)
