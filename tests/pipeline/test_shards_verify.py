"""What `avdata verify` refuses, each time by shard, sample and reason; and indices made again."""

import dataclasses
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avdata import storage
from avdata.encoders.spec import Specs
from avdata.errors import CorruptShard
from avdata.pipeline.shards.dataset import Dataset, open_dataset, read_sample
from avdata.pipeline.shards.facts import facts
from avdata.pipeline.shards.index import ShardIndex, index_path, read_index, tar_path, write_index
from avdata.pipeline.shards.plan import PlanSettings, plan_shards
from avdata.pipeline.shards.rebuild import rebuild_index, rebuild_indices
from avdata.pipeline.shards.sample import EncodedSample
from avdata.pipeline.shards.verify import Problem, verify_shards
from avdata.pipeline.shards.writer import write_dataset, write_shard
from tests.pipeline.clips import a_clip
from tests.trainer.tiny import CLIP, SPECS

Members = dict[str, bytes]


def written(root: Path, specs: Specs = SPECS, seed: int = 0) -> Dataset:
    """Shards of random latents whose facts are those of their clips."""
    clips = [a_clip(f"{source}.mp4", 2.5 * k, contact=k == 0) for source in "abcd" for k in (0, 1)]
    settings = PlanSettings(samples_per_shard=4, val_fraction=0.3)
    plans = plan_shards(clips, lambda _: CLIP, settings, ["1", dataclasses.asdict(specs)])
    rng = np.random.default_rng(seed)

    def drawn(*size: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return rng.standard_normal(size, dtype=np.float32)

    for plan in plans:
        samples = [
            EncodedSample(
                key=clip.clip_id,
                source=clip.source.digest,
                subsets=facts(clip, CLIP)["subsets"],
                video=drawn(*specs.video.latent_shape(CLIP.num_frames, CLIP.height, CLIP.width)),
                audio=drawn(specs.audio.channels, specs.audio.latent_length(CLIP.num_samples)),
                video_text=drawn(2, specs.video_text.width),
                audio_text=drawn(3, specs.audio_text.width),
                meta={**facts(clip, CLIP), "round_trip": {"snr_db": None, "lag_ms": 1.0 * k}},
            )
            for k, clip in enumerate(plan.clips)
        ]
        write_shard(root, plan, samples)
    write_dataset(root, specs, plans, {})
    return open_dataset(root)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return written(tmp_path / "shards")


def problems(dataset: Dataset) -> list[Problem]:
    return verify_shards(open_dataset(dataset.root), lambda _: None).problems


def relisted(dataset: Dataset, name: str, index: ShardIndex) -> None:
    """As if this index had been written: what is wrong is then found by verification alone."""
    path = index_path(dataset.root, name)
    write_index(path, index)
    file = dataset.root / "dataset.json"
    plain = json.loads(file.read_text())
    for shard in plain["shards"]:
        if shard["name"] == name:
            shard["index_digest"] = storage.digest_file(path)
    file.write_text(json.dumps(plain))


def remade(dataset: Dataset, change: Callable[[Members], Members]) -> tuple[str, str]:
    """The first tar with other members and an index made from it; answers its name and first key.

    Members that are no sample's are in the tar alone.
    """
    name = dataset.shards[0]["name"]
    tar, before = tar_path(dataset.root, name), read_index(index_path(dataset.root, name))
    members: Members = {}
    with tarfile.open(tar) as old:
        for one in old:
            file = old.extractfile(one)
            assert file is not None
            members[one.name] = file.read()
    with tarfile.open(tar, "w") as new:
        for path, data in change(members).items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            new.addfile(info, io.BytesIO(data))
    digests = before.plan_digest, before.encoding_digest
    try:
        index = rebuild_index(dataset.root, name, *digests)
    except CorruptShard:
        size, digest = tar.stat().st_size, storage.digest_file(tar)
        index = dataclasses.replace(before, size_bytes=size, tar_digest=digest)
    relisted(dataset, name, index)
    return name, before.samples[0].key


def with_array(member: str, array: "np.ndarray[Any, np.dtype[Any]]") -> Members:
    file = io.BytesIO()
    np.save(file, array)
    return {member: file.getvalue()}


def test_a_whole_dataset_is_whole(dataset: Dataset) -> None:
    assert problems(dataset) == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_latent_that_is_not_finite(dataset: Dataset, value: float) -> None:
    sample = read_sample(dataset.root, dataset.samples("train")[0])
    array = sample.video.copy()
    array.flat[7] = value
    member = f"{sample.key}.video.npy"
    name, key = remade(dataset, lambda members: {**members, **with_array(member, array)})
    assert problems(dataset) == [Problem(name, key, "video.npy: 1 values that are not finite")]


def test_a_latent_of_another_encoder_by_its_shape(dataset: Dataset) -> None:
    entry = dataset.samples("train")[0]
    member, array = f"{entry.key}.video.npy", np.zeros((16, 3, 4, 4), np.float16)
    name, key = remade(dataset, lambda members: {**members, **with_array(member, array)})
    (found,) = problems(dataset)
    assert (found.shard, found.key) == (name, key)
    given = SPECS.video.latent_shape(CLIP.num_frames, CLIP.height, CLIP.width)
    assert (
        found.what
        == f"video.npy: shape (16, 3, 4, 4), the encoder {SPECS.video.name} gives {given}"
    )


def test_an_array_of_another_type(dataset: Dataset) -> None:
    sample = read_sample(dataset.root, dataset.samples("train")[0])
    member, array = f"{sample.key}.audio.npy", sample.audio.astype(np.float64)
    name, key = remade(dataset, lambda members: {**members, **with_array(member, array)})
    assert problems(dataset) == [Problem(name, key, "audio.npy: float64, not float16")]


def test_bytes_that_are_no_array(dataset: Dataset) -> None:
    member = f"{dataset.samples('train')[0].key}.audio.npy"
    name, key = remade(dataset, lambda members: {**members, member: b"no array at all"})
    assert any(
        (one.shard, one.key) == (name, key) and one.what.startswith("audio.npy:")
        for one in problems(dataset)
    )


def test_latents_of_other_weights_that_have_the_same_shape(
    dataset: Dataset, tmp_path: Path
) -> None:
    """A whole shard, its index and its line in dataset.json come from another run."""
    video = dataclasses.replace(SPECS.video, digest="of other weights")
    other = written(tmp_path / "other", dataclasses.replace(SPECS, video=video), seed=1)
    name = dataset.shards[0]["name"]
    shutil.copyfile(tar_path(other.root, name), tar_path(dataset.root, name))
    shutil.copyfile(index_path(other.root, name), index_path(dataset.root, name))
    with pytest.raises(CorruptShard, match=f"{name}.index.json: missing or not the one listed"):
        open_dataset(dataset.root)
    relisted(dataset, name, read_index(index_path(other.root, name)))
    (found,) = problems(dataset)
    assert (found.shard, found.key) == (name, "")
    assert "encoded by other encoders" in found.what


def test_a_truncated_tar_names_the_samples_that_are_cut(dataset: Dataset) -> None:
    name = dataset.shards[0]["name"]
    tar, index = tar_path(dataset.root, name), read_index(index_path(dataset.root, name))
    last = index.samples[-1]
    tar.write_bytes(tar.read_bytes()[: last.members["video.npy"].offset + 10])
    found = problems(dataset)
    assert {one.shard for one in found} == {name}
    assert {one.key for one in found if one.key} == {last.key}
    said = [one.what for one in found]
    assert "video.npy: the tar ends before it does" in said
    assert any("bytes, the index has" in what for what in said)


def test_a_flipped_byte_names_the_member(dataset: Dataset) -> None:
    name = dataset.shards[0]["name"]
    tar, index = tar_path(dataset.root, name), read_index(index_path(dataset.root, name))
    data = bytearray(tar.read_bytes())
    data[index.samples[1].members["audio.npy"].offset + 140] ^= 0x10
    tar.write_bytes(data)
    what = "audio.npy: bytes differ from those that were written"
    assert Problem(name, index.samples[1].key, what) in problems(dataset)


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "..\\x", ".x"])
def test_a_member_path_that_escapes(dataset: Dataset, path: str) -> None:
    name, _ = remade(dataset, lambda members: {**members, path: b"{}"})
    assert Problem(name, path, "a member path that leaves the folder") in problems(dataset)


def test_a_link_in_a_tar(dataset: Dataset) -> None:
    name = dataset.shards[0]["name"]
    tar, index = tar_path(dataset.root, name), read_index(index_path(dataset.root, name))
    link = tarfile.TarInfo("link.npy")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(tar, "a") as file:
        file.addfile(link)
    size, digest = tar.stat().st_size, storage.digest_file(tar)
    relisted(dataset, name, dataclasses.replace(index, size_bytes=size, tar_digest=digest))
    assert problems(dataset) == [Problem(name, "link.npy", "in the tar and not in the index")]


def test_an_index_that_names_members_that_are_not_there(dataset: Dataset) -> None:
    name = dataset.shards[0]["name"]
    index = read_index(index_path(dataset.root, name))
    first, *rest = index.samples
    ghost = dataclasses.replace(first, key="0" * 32)
    relisted(dataset, name, dataclasses.replace(index, samples=[first, *rest, ghost]))
    found = problems(dataset)
    assert {(one.shard, one.key) for one in found} == {(name, ""), (name, ghost.key)}
    said = [one.what for one in found]
    assert f"{ghost.key}.video.npy: not in the tar where the index has it" in said
    assert f"{len(index.samples) + 1} samples, dataset.json has {len(index.samples)}" in said


def test_an_index_that_leaves_samples_out(dataset: Dataset) -> None:
    name = dataset.shards[0]["name"]
    index = read_index(index_path(dataset.root, name))
    relisted(dataset, name, dataclasses.replace(index, samples=index.samples[1:]))
    left_out = f"{index.samples[0].key}.json"
    assert Problem(name, left_out, "in the tar and not in the index") in problems(dataset)


@pytest.mark.parametrize("offset", [-1, "0", None, 1.5])
def test_an_index_with_a_place_that_is_none(dataset: Dataset, offset: object) -> None:
    name = dataset.shards[0]["name"]
    path = index_path(dataset.root, name)
    plain = json.loads(path.read_text())
    plain["samples"][0]["members"]["json"]["offset"] = offset
    path.write_text(json.dumps(plain))
    with pytest.raises(CorruptShard, match=f"{path.name}: not a shard index"):
        read_index(path)


def test_the_facts_of_another_clip(dataset: Dataset) -> None:
    one, other = dataset.samples("train")[:2]

    def swapped(members: Members) -> Members:
        return {**members, f"{one.key}.json": members[f"{other.key}.json"]}

    name, key = remade(dataset, swapped)
    assert Problem(name, key, "json: the facts are those of another clip") in problems(dataset)


def test_a_dataset_file_of_other_shards(dataset: Dataset, tmp_path: Path) -> None:
    other = written(tmp_path / "other", seed=1)
    shutil.copyfile(other.root / "dataset.json", dataset.root / "dataset.json")
    name = dataset.shards[0]["name"]
    with pytest.raises(CorruptShard, match=f"{name}.index.json: missing or not the one listed"):
        open_dataset(dataset.root)


@pytest.mark.parametrize("name", ["../out/train-0", "/etc/train-0", "train-0", "a/../b/c"])
def test_a_dataset_file_that_leads_out_of_its_folder(dataset: Dataset, name: str) -> None:
    file = dataset.root / "dataset.json"
    plain = json.loads(file.read_text())
    plain["shards"][0]["name"] = name
    file.write_text(json.dumps(plain))
    for read in (open_dataset, rebuild_indices):
        with pytest.raises(CorruptShard, match="is no name of a shard"):
            read(dataset.root)


def test_an_index_made_again_from_its_tar_is_the_one_that_was_written(dataset: Dataset) -> None:
    for shard, index in dataset.indices():
        digests = index.plan_digest, index.encoding_digest
        assert rebuild_index(dataset.root, shard["name"], *digests) == index
        assert index.samples[0].round_trip is not None


def test_lost_indices_come_back_to_the_byte(dataset: Dataset) -> None:
    paths = [index_path(dataset.root, shard["name"]) for shard in dataset.shards]
    before = [path.read_bytes() for path in paths]
    paths[0].unlink()
    paths[-1].write_bytes(before[-1][:100])
    assert rebuild_indices(dataset.root) == [
        dataset.shards[0]["name"],
        dataset.shards[-1]["name"],
    ]
    assert [path.read_bytes() for path in paths] == before
    assert rebuild_indices(dataset.root) == []
    assert problems(dataset) == []


def test_an_index_is_not_made_from_a_tar_that_was_changed(dataset: Dataset) -> None:
    """It would vouch for the damage."""
    name = dataset.shards[0]["name"]
    tar, path = tar_path(dataset.root, name), index_path(dataset.root, name)
    place = read_index(path).samples[0].members["video.npy"]
    data = bytearray(tar.read_bytes())
    data[place.offset + place.length - 1] ^= 1
    tar.write_bytes(data)
    path.unlink()
    with pytest.raises(CorruptShard, match=f"{tar.name}: not the tar that was listed"):
        rebuild_indices(dataset.root)
    assert not path.exists()


def test_an_index_that_says_otherwise_than_the_sample(dataset: Dataset) -> None:
    name = dataset.shards[0]["name"]
    index = read_index(index_path(dataset.root, name))
    first = dataclasses.replace(index.samples[0], subsets=["large_motion"])
    relisted(dataset, name, dataclasses.replace(index, samples=[first, *index.samples[1:]]))
    what = "json: source, subsets or round trip are not those of the index"
    assert problems(dataset) == [Problem(name, first.key, what)]
