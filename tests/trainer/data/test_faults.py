import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from avdata.errors import CorruptShard, RunError, UsageError
from avdata.pipeline.shards.dataset import Dataset
from avdata.pipeline.shards.retry import Attempts
from avdata.pipeline.shards.store import LocalStore, Transient
from avdata.trainer.data.config import ReadConfig
from avdata.trainer.loader import Loader
from tests.trainer.data.loaders import a_loader, everything, flip, same, write

LENIENT = ReadConfig(threads=2, max_bad_samples=3)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return write(tmp_path / "shards")


def epoch(loader: Loader) -> range:
    return range(loader.plan.steps_before(1))


@pytest.mark.parametrize("member", ["video.npy", "audio_text.npy"])
def test_a_changed_byte_is_never_trained_on(dataset: Dataset, member: str) -> None:
    flip(dataset, member)
    with pytest.raises(CorruptShard, match=rf"train-.*\.tar: .*\.{member} .*avdata encode"):
        list(a_loader(dataset.root).batches(0, 1))


def test_a_lost_shard_is_named(dataset: Dataset) -> None:
    for tar in Path(dataset.root).glob("*/train-*.tar"):
        tar.unlink()
    with pytest.raises(CorruptShard, match=r"\.tar: missing"):
        list(a_loader(dataset.root).batches(0, 1))


def test_a_cut_shard_is_named(dataset: Dataset) -> None:
    for tar in Path(dataset.root).glob("*/train-*.tar"):
        os.truncate(tar, 600)
    with pytest.raises(CorruptShard, match=r"\.tar: ends at byte 600"):
        list(a_loader(dataset.root).batches(0, 1))


def test_damaged_samples_count_for_nothing_are_listed_and_disturb_no_other(
    dataset: Dataset, tmp_path: Path
) -> None:
    sound = a_loader(dataset.root)
    whole = list(sound.batches(0, len(epoch(sound))))
    bad = set(flip(dataset, "video.npy", most=3))
    listed = tmp_path / "run" / "quarantine.jsonl"
    loader = a_loader(dataset.root, read=LENIENT, quarantine=listed)
    for before, after in zip(whole, loader.batches(0, len(whole)), strict=True):
        assert after.keys == before.keys
        for seat, key in enumerate(after.keys):
            if key in bad:
                assert after.share[seat] == 0
                assert not after.video.latents[seat].any()
                assert not after.video.text_mask[seat].any()
            else:
                pairs = zip(everything(before), everything(after), strict=True)
                assert all(torch.equal(a[seat], b[seat]) for a, b in pairs)
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    assert {line["key"] for line in lines} == bad
    assert len(lines) == len(bad)
    assert all("does not have the bytes" in line["reason"] for line in lines)
    assert loader.metrics()["substitutes"] >= len(bad)


def test_too_many_damaged_samples_stop_the_run_and_say_why(dataset: Dataset) -> None:
    flip(dataset, "audio.npy", most=4)
    loader = a_loader(dataset.root, read=LENIENT)
    with pytest.raises(CorruptShard, match="4 damaged samples, data.read.max_bad_samples allows 3"):
        list(loader.batches(0, len(epoch(loader))))


def test_a_repaired_shard_is_read_again(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    before = list(a_loader(dataset.root).batches(0, 3))
    flip(dataset, "video.npy", most=2)
    list(a_loader(dataset.root, read=LENIENT, quarantine=path).batches(0, 3))
    flip(dataset, "video.npy", most=2)
    after = a_loader(dataset.root, read=LENIENT, quarantine=path).batches(0, 3)
    assert all(map(same, before, after))


class Shaky(LocalStore):
    """A store that answers every so many times only, or with a bit changed."""

    def __init__(self, root: str, every: int, kind: str) -> None:
        super().__init__(root)
        object.__setattr__(self, "plan", [every, kind, 0])

    def read_into(self, name: str, offset: int, pieces: Sequence[memoryview]) -> None:
        plan = self.plan  # type: ignore[attr-defined]
        plan[2] += 1
        if plan[1] == "silent" and plan[2] % plan[0]:
            raise Transient("no answer")
        super().read_into(name, offset, pieces)
        if plan[1] == "flip" and plan[2] % plan[0]:
            pieces[-1][0] ^= 1
