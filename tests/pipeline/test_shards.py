import dataclasses
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import webdataset

from avdata.encoders.spec import AudioSpec, ClipShape, Specs, TextSpec, VideoSpec
from avdata.errors import CorruptShard, RunError, UsageError
from avdata.pipeline.record import Clip
from avdata.pipeline.shards.dataset import Dataset, open_dataset, read_members, read_sample
from avdata.pipeline.shards.plan import PlanSettings, ShardPlan, plan_shards
from avdata.pipeline.shards.sample import ARRAYS, EncodedSample
from avdata.pipeline.shards.verify import VerifyReport, verify_shards
from avdata.pipeline.shards.writer import is_done, write_dataset, write_shard
from tests.pipeline.clips import a_clip

SHAPE = ClipShape(num_frames=5, height=32, width=48)
SPECS = Specs(
    VideoSpec("v", "0", channels=3),
    AudioSpec("a", "0", channels=2),
    TextSpec("vt", "0", width=6, max_tokens=4),
    TextSpec("at", "0", width=4, max_tokens=4),
)


def a_sample(clip: Clip) -> EncodedSample:
    rng = np.random.default_rng(int(clip.clip_id[:8], 16))
    length = SPECS.audio.latent_length(SHAPE.num_samples)
    return EncodedSample(
        key=clip.clip_id,
        source=clip.source.digest,
        subsets=["contact"] if clip.labels.contact else [],
        video=rng.standard_normal(SPECS.video.latent_shape(5, 32, 48)).astype(np.float32),
        audio=rng.standard_normal((2, length)).astype(np.float32),
        video_text=rng.standard_normal((rng.integers(1, 5), 6)).astype(np.float32),
        audio_text=rng.standard_normal((rng.integers(1, 5), 4)).astype(np.float32),
        meta={
            "clip_id": clip.clip_id,
            "source_digest": clip.source.digest,
            "subsets": ["contact"] if clip.labels.contact else [],
            "captions": {"video": "ein Stoß", "audio": "音"},
        },
    )


def plans_of(num_sources: int = 6) -> list[ShardPlan]:
    clips = [
        a_clip(f"{source}.mp4", 2.5 * k, contact=k == 0)
        for source in range(num_sources)
        for k in range(2)
    ]
    return plan_shards(clips, lambda _: SHAPE, PlanSettings(samples_per_shard=4, val_fraction=0.3))


def write(root: Path, plans: list[ShardPlan] | None = None) -> Dataset:
    plans = plans_of() if plans is None else plans
    for plan in plans:
        write_shard(root, plan, (a_sample(clip) for clip in plan.clips))
    write_dataset(root, SPECS, plans, {"manifest_digest": "0"})
    return open_dataset(root)


def verify(dataset: Dataset) -> VerifyReport:
    return verify_shards(dataset, lambda _: None)


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def everything(dataset: Dataset) -> Iterator[EncodedSample]:
    for split in ("train", "val"):
        for entry in dataset.samples(split):
            yield read_sample(dataset.root, entry)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_what_was_written_is_read_back_to_float16(tmp_path: Path) -> None:
    plans = plans_of()
    dataset = write(tmp_path, plans)
    written = {clip.clip_id: a_sample(clip) for plan in plans for clip in plan.clips}
    read = {sample.key: sample for sample in everything(dataset)}
    assert read.keys() == written.keys()
    for key, sample in read.items():
        wanted = written[key]
        assert (sample.source, sample.subsets) == (wanted.source, wanted.subsets)
        assert sample.meta == wanted.meta
        for name in ARRAYS:
            half = getattr(wanted, name).astype(np.float16)
            np.testing.assert_array_equal(getattr(sample, name), half)
            assert getattr(sample, name).dtype == np.float16
    assert (dataset.specs, dataset.clip) == (SPECS, SHAPE)


def test_samples_come_in_the_order_of_the_plan_and_each_in_its_split(tmp_path: Path) -> None:
    plans = plans_of()
    dataset = write(tmp_path, plans)
    for split in ("train", "val"):
        planned = [clip.clip_id for plan in plans if plan.split == split for clip in plan.clips]
        assert planned
        assert [entry.key for entry in dataset.samples(split)] == planned


def test_the_same_plan_gives_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "one")
    write(tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two")
    write(tmp_path / "one")
    assert files(tmp_path / "one") == files(tmp_path / "two")


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # It leaves tars open.
def test_stock_webdataset_reads_the_same_arrays(tmp_path: Path) -> None:
    dataset = write(tmp_path)
    ours = {sample.key: sample for sample in everything(dataset)}
    found = set()
    for shard in dataset.shards:
        tar = tmp_path / f"{shard['name']}.tar"
        for theirs in webdataset.WebDataset(str(tar), shardshuffle=False).decode():
            found.add(theirs["__key__"])
            sample = ours[theirs["__key__"]]
            assert theirs["json"] == sample.meta
            for name in ARRAYS:
                np.testing.assert_array_equal(theirs[f"{name}.npy"], getattr(sample, name))
    assert found == ours.keys()


def test_one_member_can_be_read_alone(tmp_path: Path) -> None:
    dataset = write(tmp_path)
    entry = dataset.samples("train")[1]
    data = read_members(tmp_path, entry, ["json"])
    assert json.loads(data["json"])["clip_id"] == entry.key


def test_a_whole_dataset_has_no_problems(tmp_path: Path) -> None:
    dataset = write(tmp_path)
    seen: list[str] = []
    report = verify_shards(dataset, seen.append)
    assert report.problems == []
    assert seen == [shard["name"] for shard in dataset.shards]
    assert report.num_shards == len(dataset.shards)
    assert report.num_samples == sum(shard["num_samples"] for shard in dataset.shards)


@pytest.mark.parametrize("member", [*(f"{name}.npy" for name in ARRAYS), "json"])
def test_a_flipped_bit_is_named_by_verification_and_by_the_reader(
    tmp_path: Path, member: str
) -> None:
    dataset = write(tmp_path)
    hurt, sound = dataset.samples("train")[:2]
    flip(tmp_path / hurt.tar, hurt.members[member].offset + hurt.members[member].length - 1)
    about = [problem for problem in verify(dataset).problems if problem.key]
    assert [(f"{one.shard}.tar", one.key) for one in about] == [(hurt.tar, hurt.key)]
    assert member in about[0].what
    with pytest.raises(CorruptShard, match=f"{hurt.key}.{member}") as caught:
        read_sample(tmp_path, hurt)
    assert hurt.tar in str(caught.value)
    assert read_sample(tmp_path, sound).key == sound.key


def test_a_flipped_bit_between_members_is_found_too(tmp_path: Path) -> None:
    dataset = write(tmp_path)
    entry = dataset.samples("train")[0]
    first = min(member.offset for member in entry.members.values())
    flip(tmp_path / entry.tar, first - 200)  # In the header's unused tail.
    problems = verify(dataset).problems
    assert f"{problems[0].shard}.tar" == entry.tar


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_tar_is_named(tmp_path: Path, share: float) -> None:
    dataset = write(tmp_path)
    name = dataset.shards[-1]["name"]
    tar = tmp_path / f"{name}.tar"
    tar.write_bytes(tar.read_bytes()[: int(share * tar.stat().st_size)])
    problems = verify(dataset).problems
    assert {problem.shard for problem in problems} == {name}


def test_a_missing_tar_is_named(tmp_path: Path) -> None:
    dataset = write(tmp_path)
    entry = dataset.samples("val")[0]
    (tmp_path / entry.tar).unlink()
    with pytest.raises(CorruptShard, match=entry.tar):
        read_sample(tmp_path, entry)
    (problem,) = verify(dataset).problems
    assert f"{problem.shard}.tar" == entry.tar
    assert "missing" in problem.what


def test_an_index_that_was_changed_is_named_when_opening(tmp_path: Path) -> None:
    dataset = write(tmp_path)
    index = tmp_path / f"{dataset.shards[0]['name']}.index.json"
    index.write_text(index.read_text().replace('"offset": 512', '"offset": 513'))
    with pytest.raises(CorruptShard, match=index.name):
        open_dataset(tmp_path)
    index.unlink()
    with pytest.raises(CorruptShard, match=index.name):
        open_dataset(tmp_path)


def test_a_clip_in_two_shards_and_a_source_in_two_splits_are_found(tmp_path: Path) -> None:
    plans = plans_of()
    train = next(plan for plan in plans if plan.split == "train")
    twice = dataclasses.replace(train, name=f"{train.bucket}/val-000009", split="val")
    problems = verify(write(tmp_path, [train, twice])).problems
    for key in (clip.clip_id for clip in train.clips):
        said = [problem.what for problem in problems if problem.key == key]
        assert any("same clip" in what for what in said)
        assert any("split train" in what for what in said)


def test_arrays_of_another_encoder_are_found(tmp_path: Path) -> None:
    write(tmp_path)
    file = tmp_path / "dataset.json"
    plain = json.loads(file.read_text())
    plain["specs"]["audio"]["channels"] = 5
    file.write_text(json.dumps(plain))
    problems = verify(open_dataset(tmp_path)).problems
    assert problems
    assert all(problem.what.startswith("audio.npy: shape") for problem in problems)


def test_a_shard_is_done_when_index_and_tar_are_those_of_the_plan(tmp_path: Path) -> None:
    plan, *others = plans_of()
    index, tar = tmp_path / f"{plan.name}.index.json", tmp_path / f"{plan.name}.tar"
    assert not is_done(tmp_path, plan)
    write_shard(tmp_path, plan, map(a_sample, plan.clips))
    assert is_done(tmp_path, plan)
    assert not any(is_done(tmp_path, other) for other in others)
    assert not is_done(tmp_path, dataclasses.replace(plan, digest="of other settings"))
    kept = index.read_bytes()
    index.write_bytes(kept[: len(kept) // 2])
    assert not is_done(tmp_path, plan)
    index.unlink()
    assert not is_done(tmp_path, plan)
    index.write_bytes(kept)
    assert is_done(tmp_path, plan)
    tar.write_bytes(tar.read_bytes()[:-1])
    assert not is_done(tmp_path, plan)
    tar.unlink()
    assert not is_done(tmp_path, plan)


def test_a_writer_that_fails_half_way_leaves_no_shard(tmp_path: Path) -> None:
    plan = plans_of()[0]
    write_shard(tmp_path, plan, map(a_sample, plan.clips))

    def breaks() -> Iterator[EncodedSample]:
        yield a_sample(plan.clips[0])
        raise RunError("the source is gone")

    with pytest.raises(RunError, match="gone"):
        write_shard(tmp_path, plan, breaks())
    assert not is_done(tmp_path, plan)
    assert not list(tmp_path.rglob("*.tmp-*"))


def test_other_samples_than_planned_are_refused(tmp_path: Path) -> None:
    plan = plans_of()[0]
    with pytest.raises(RunError, match="3 samples for 4 clips"):
        write_shard(tmp_path, plan, map(a_sample, plan.clips[:-1]))
    with pytest.raises(RunError):
        write_shard(tmp_path, plan, map(a_sample, plan.clips[::-1]))
    assert not is_done(tmp_path, plan)


def test_a_dataset_needs_every_planned_shard(tmp_path: Path) -> None:
    first, *rest = plans_of()
    for plan in rest:
        write_shard(tmp_path, plan, map(a_sample, plan.clips))
    with pytest.raises(RunError, match=first.name):
        write_dataset(tmp_path, SPECS, [first, *rest], {})
    assert not (tmp_path / "dataset.json").exists()


def test_shards_that_no_plan_names_go_and_nothing_else_does(tmp_path: Path) -> None:
    write(tmp_path, plans_of(12))
    bucket = plans_of()[0].bucket
    mine = tmp_path / bucket / "notes.txt"
    mine.write_text("keep me")
    fewer = write(tmp_path, plans_of(3))
    left = {path.name for path in (tmp_path / bucket).iterdir()} - {mine.name}
    named = {shard["name"].split("/")[1] for shard in fewer.shards}
    assert left == {name + suffix for name in named for suffix in (".tar", ".index.json")}
    assert mine.read_text() == "keep me"
    assert verify(fewer).problems == []


@pytest.mark.parametrize("value", [np.nan, np.inf, 70_000.0])
@pytest.mark.parametrize("name", ARRAYS)
def test_a_value_that_float16_cannot_hold_is_refused_by_name(
    tmp_path: Path, name: str, value: float
) -> None:
    plan = plans_of()[0]
    samples = [a_sample(clip) for clip in plan.clips]
    getattr(samples[1], name).flat[1] = value
    key = samples[1].key
    wanted = f"{plan.name}.tar: clip {key}: its {name} has.* select.*: clip_id == '{key}'`"
    with pytest.raises(RunError, match=wanted):
        write_shard(tmp_path, plan, samples)
    assert not is_done(tmp_path, plan)


def test_tars_hold_plain_files_of_no_one_and_no_time(tmp_path: Path) -> None:
    dataset = write(tmp_path)
    with tarfile.open(tmp_path / f"{dataset.shards[0]['name']}.tar") as tar:
        members = tar.getmembers()
    assert {(one.mtime, one.uname, one.isfile()) for one in members} == {(0, "avdata", True)}


def test_a_folder_that_is_no_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no dataset\.json"):
        open_dataset(tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        open_dataset(tmp_path / "missing")
    (tmp_path / "dataset.json").write_text('{"format": 99}')
    with pytest.raises(CorruptShard, match="format 99"):
        open_dataset(tmp_path)
