"""Shards on a real S3 server."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import fsspec
import pytest

from avdata import storage
from avdata.errors import CorruptShard, RunError, UsageError
from avdata.pipeline.shards import writer
from avdata.pipeline.shards.dataset import open_dataset, read_sample
from avdata.pipeline.shards.exports import FORMATS, export
from avdata.pipeline.shards.index import ShardIndex
from avdata.pipeline.shards.rebuild import rebuild_indices
from avdata.pipeline.shards.sample import EncodedSample
from avdata.pipeline.shards.verify import verify_shards
from avdata.pipeline.shards.writer import is_done, write_shard
from tests.pipeline.test_shards import a_sample, plans_of, verify, write
from tests.s3 import needs_server

pytestmark = needs_server


def files(root: Path) -> dict[str, bytes]:
    if storage.is_remote(root):
        names = root.fs.find(root.path)
        return {name.removeprefix(root.path).lstrip("/"): root.fs.cat_file(name) for name in names}
    return {storage.below(p, root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_shards_on_s3_are_those_on_disk_and_read_alike(s3_bucket: Path, tmp_path: Path) -> None:
    near, far = write(tmp_path / "near"), write(s3_bucket / "deep" / "far")
    assert files(far.root) == files(near.root)
    assert far.digest == near.digest
    assert verify(far).problems == []
    assert verify(far).num_samples > 0
    for one, other in zip(near.samples("train"), far.samples("train"), strict=True):
        assert one == other
        found, wanted = read_sample(far.root, other), read_sample(near.root, one)
        assert (found.video == wanted.video).all()
        assert (found.meta, found.subsets) == (wanted.meta, wanted.subsets)
    for name in FORMATS:
        export(near, name)
        export(far, name)
    assert files(far.root).keys() == files(near.root).keys()
    again = write(far.root, plans_of(3))  # Exports and shards of before go.
    assert files(again.root) == files(write(near.root, plans_of(3)).root)


def test_the_index_is_the_commit(s3_bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, plan = s3_bucket / "shards", plans_of()[0]

    def killed(path: Path, index: ShardIndex) -> None:
        tar = root / f"{plan.name}.tar"
        assert path == root / f"{plan.name}.index.json"
        assert (tar.stat().st_size, storage.digest_file(tar)) == (
            index.size_bytes,
            index.tar_digest,
        )
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writer, "write_index", killed)
        with pytest.raises(KeyboardInterrupt):
            write_shard(root, plan, map(a_sample, plan.clips))
    assert not is_done(root, plan)
    write_shard(root, plan, map(a_sample, plan.clips))
    assert is_done(root, plan)


def test_a_writer_that_fails_half_way_leaves_no_shard(s3_bucket: Path) -> None:
    plan = plans_of()[0]

    def breaks() -> Iterator[EncodedSample]:
        yield a_sample(plan.clips[0])
        raise RunError("the source is gone")

    write_shard(s3_bucket, plan, map(a_sample, plan.clips))
    with pytest.raises(RunError, match="gone"):
        write_shard(s3_bucket, plan, breaks())
    assert not is_done(s3_bucket, plan)
    assert [name for name in files(s3_bucket) if "index" in name] == []


def test_lost_indices_are_made_again_and_damage_is_named(s3_bucket: Path) -> None:
    root = s3_bucket / "shards"
    dataset = write(root)
    before, name = files(root), dataset.shards[0]["name"]
    index = root / f"{name}.index.json"
    index.unlink()
    with pytest.raises(CorruptShard, match=r"index\.json: missing"):
        open_dataset(root)
    assert rebuild_indices(root) == [name]
    assert files(root) == before
    entry = dataset.samples("train")[0]
    data = bytearray(before[entry.tar])
    data[entry.members["video.npy"].offset + entry.members["video.npy"].length - 1] ^= 1
    (root / entry.tar).write_bytes(bytes(data))
    problems = verify_shards(dataset, lambda _: None).problems
    assert entry.key in {problem.key for problem in problems}
    with pytest.raises(CorruptShard, match=f"{entry.key}.video.npy"):
        read_sample(root, entry)
    (root / entry.tar).unlink()
    with pytest.raises(CorruptShard, match="missing"):
        read_sample(root, entry)


def test_an_object_larger_than_its_shard_is_not_fetched(
    s3_bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = write(s3_bucket / "shards")
    tar, others = dataset.root / dataset.samples("train")[0].tar, len(dataset.shards) - 1
    size = tar.stat().st_size
    tar.write_bytes(tar.read_bytes() + bytes(512))
    fetched: list[str] = []
    fetch = storage.local_copy

    def noted(path: Path) -> AbstractContextManager[Path]:
        fetched.append(path.name)
        return fetch(path)

    monkeypatch.setattr(storage, "local_copy", noted)
    (problem,) = verify(dataset).problems
    assert problem.what == f"{size + 512} bytes, the index has {size}: not fetched"
    assert len(fetched) == others
    assert tar.name not in fetched


def test_a_folder_of_other_things_is_refused(s3_bucket: Path) -> None:
    (s3_bucket / "mine" / "notes.txt").write_bytes(b"keep me")
    with pytest.raises(UsageError, match="holds other files and no shards"):
        storage.require_ours(s3_bucket / "mine", ("dataset.json",), "shards")
    storage.require_ours(s3_bucket / "new", ("dataset.json",), "shards")
    with pytest.raises(UsageError, match=r"no dataset\.json|no such folder"):
        open_dataset(s3_bucket / "none")


@pytest.mark.parametrize(
    ("name", "value"),
    [("AWS_SECRET_ACCESS_KEY", "wrong"), ("AWS_ENDPOINT_URL", "http://127.0.0.1:9")],
)
def test_wrong_settings_are_one_line(
    s3_bucket: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setitem(storage.S3_OPTIONS, "config_kwargs", {"retries": {"max_attempts": 1}})
    monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").clear_instance_cache()
    root, plan = storage.place(str(s3_bucket)), plans_of(1)[0]
    with pytest.raises(RunError, match=r"S3 refuses or .*AWS_ENDPOINT_URL") as one:
        write_shard(root, plan, map(a_sample, plan.clips))
    assert "\n" not in str(one.value)
    with pytest.raises(RunError, match="S3 refuses"):
        open_dataset(root)
