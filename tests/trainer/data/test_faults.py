import contextlib
import dataclasses
import errno
import json
import os
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from avdata.errors import CorruptShard, RunError
from avdata.pipeline.shards import retry
from avdata.pipeline.shards.dataset import Dataset
from avdata.pipeline.shards.retry import Attempts
from avdata.pipeline.shards.store import LocalStore, Transient
from avdata.trainer.data.config import ReadConfig
from avdata.trainer.loader import Loader
from tests.trainer.data.loaders import STRICT, a_loader, epoch, everything, flip, over, same, write

LENIENT = ReadConfig(threads=2, max_bad_samples=3, max_bad_share=1)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return write(tmp_path / "shards")


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
    with pytest.raises(CorruptShard, match=r"\.tar: has no byte"):
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
    for _ in range(2):  # Whoever tries again goes no further.
        with pytest.raises(CorruptShard, match=r"4 damaged samples, .* max_bad_share allow 3"):
            list(loader.batches(0, len(epoch(loader))))


def test_of_few_samples_none_may_be_damaged_unless_asked_for(dataset: Dataset) -> None:
    flip(dataset, "video.npy", most=1)
    loader = a_loader(dataset.root, read=ReadConfig())
    with pytest.raises(CorruptShard, match="max_bad_share allow 0"):
        list(loader.batches(0, len(epoch(loader))))


def test_a_sample_is_listed_once_over_restarts(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    bad = flip(dataset, "video.npy", most=2)
    path.write_text('{"key": "cut o')
    for _ in range(2):
        loader = a_loader(dataset.root, read=LENIENT, quarantine=path)
        list(loader.batches(0, len(epoch(loader))))
        assert loader.metrics()["substitutes"] >= len(bad)
        assert loader.feed.quarantine.keys == set(bad)
    listed = [json.loads(line)["key"] for line in path.read_text().splitlines()[1:]]
    assert sorted(listed) == sorted(bad)


def test_a_sample_is_listed_once_over_processes(dataset: Dataset, tmp_path: Path) -> None:
    path, bad = tmp_path / "quarantine.jsonl", flip(dataset, "video.npy", most=3)
    ranks = [a_loader(dataset.root, rank, 2, LENIENT, quarantine=path) for rank in range(2)]
    steps = ranks[0].plan.steps_before(4)
    for _ in zip(*(loader.batches(0, steps) for loader in ranks), strict=True):
        pass
    assert sum(len(loader.feed.quarantine.keys) for loader in ranks) > len(bad)  # They moved.
    assert sorted(json.loads(line)["key"] for line in path.read_text().splitlines()) == sorted(bad)


def test_a_repaired_shard_is_read_again(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    before = list(a_loader(dataset.root).batches(0, 3))
    flip(dataset, "video.npy", most=2)
    list(a_loader(dataset.root, read=LENIENT, quarantine=path).batches(0, 3))
    flip(dataset, "video.npy", most=2)
    after = a_loader(dataset.root, read=LENIENT, quarantine=path).batches(0, 3)
    assert all(map(same, before, after))


class Shaky:
    """A store on a folder that fails in a given way, all but every so many times, after the first
    so many calls.
    """

    def __init__(self, root: Path, failure: str, every: int, sound: int = 0) -> None:
        self.root = str(root)
        self.calls, self._first = 0, sound
        self._sound, self._failure, self._every = LocalStore(str(root)), failure, every

    def read_into(self, name: str, offset: int, pieces: Sequence[memoryview]) -> None:
        self.calls += 1
        fails = self.calls > self._first and self.calls % self._every != 0
        if fails and self._failure == "silent":
            raise Transient(f"{name}: no answer")
        self._sound.read_into(name, offset, pieces)
        if fails:
            pieces[-1][0] ^= 1


def shaky(
    dataset: Dataset, failure: str, every: int, read: ReadConfig = STRICT, sound: int = 0
) -> Loader:
    store = Shaky(Path(dataset.root), failure, every, sound)
    return over(a_loader(dataset.root, read=read), store)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.001)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("failure", "every"), [("silent", 5), ("flipped", 2)])
def test_what_fails_for_a_while_is_read_again_and_counted(
    dataset: Dataset, failure: str, every: int
) -> None:
    one_thread = dataclasses.replace(STRICT, threads=1)
    loader = shaky(dataset, failure, every, one_thread)
    assert all(map(same, a_loader(dataset.root).batches(0, 4), loader.batches(0, 4)))
    metrics = loader.metrics()
    assert metrics["retries"] == (every - 1) * metrics["samples"] > 0
    assert metrics["reads"] == metrics["samples"] + metrics["retries"]


@pytest.mark.usefixtures("impatient")
def test_a_file_that_cannot_be_opened_for_a_while_is_opened_again(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many open files, a stale handle of a network mount."""
    whole = list(a_loader(dataset.root).batches(0, 2))
    loader = a_loader(dataset.root, read=dataclasses.replace(STRICT, threads=1))
    calls, opened = 0, os.open

    def fails_at_times(path: str, *rest: int) -> int:
        nonlocal calls
        if not str(path).endswith(".tar"):
            return opened(path, *rest)
        calls += 1
        if calls % 3 == 1:
            raise OSError(errno.EMFILE, "Too many open files")
        return opened(path, *rest)

    monkeypatch.setattr(os, "open", fails_at_times)
    assert all(map(same, whole, loader.batches(0, 2)))
    assert loader.metrics()["retries"] > 0
    assert loader.metrics()["substitutes"] == 0


@pytest.mark.usefixtures("impatient")
def test_a_store_that_never_answers_stops_the_run_and_is_no_damage(dataset: Dataset) -> None:
    read = dataclasses.replace(LENIENT, attempts=3)
    loader = shaky(dataset, "silent", 10**9, read)
    with pytest.raises(RunError, match="no answer in 3 attempts") as caught:
        list(loader.batches(0, 1))
    assert not isinstance(caught.value, CorruptShard)
    assert loader.metrics()["substitutes"] == 0


def test_nobody_waits_for_a_silent_store_once_the_batches_are_not_wanted(
    dataset: Dataset,
) -> None:
    read = dataclasses.replace(STRICT, threads=1, attempts=9, ahead=2)
    size = len(a_loader(dataset.root).keys(0))
    loader = shaky(dataset, "silent", 10**9, read, sound=size)
    assert loader.metrics()["wait_seconds"] == 0
    with contextlib.closing(loader.feed.batches(0, 3)) as batches:  # type: ignore[type-var]
        next(batches)  # Those ahead of it are never answered.
        while loader.metrics()["retries"] == 0:
            time.sleep(0.01)
    metrics = loader.metrics()
    assert metrics["samples"] == size
    assert metrics["wait_seconds"] > 0
    assert metrics["retries"] < read.attempts - 1


@pytest.mark.usefixtures("impatient")
def test_the_end_of_some_batches_is_not_that_of_others(dataset: Dataset) -> None:
    """Nor of single samples: each is read again as often as it may be."""
    whole = list(a_loader(dataset.root).batches(0, 4))
    loader = shaky(dataset, "silent", every=2)
    older, newer = loader.feed.batches(0, 4), loader.batches(0, 4)
    found = [next(newer)]
    next(older)
    older.close()  # type: ignore[attr-defined]
    found += newer
    assert all(map(same, whole, found))
    assert all(map(same, whole, loader.batches(0, 4)))
    loader.reader.read(dataset.samples("val")[0], (0, 0))


def test_pauses_grow_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def noted(_: threading.Event, seconds: float) -> bool:
        pauses.append(seconds)
        return True

    monkeypatch.setattr(threading.Event, "wait", noted)

    def silent() -> None:
        raise Transient("x")

    before = random.getstate()

    for _ in range(2):
        with pytest.raises(RunError):
            Attempts(6)(silent)
    assert random.getstate() == before  # The user's own numbers.
    first, second = pauses[:5], pauses[5:]
    assert first == sorted(first)
    assert first != second
    assert sum(first) > 10


def test_attempts_that_outlast_a_collective_are_refused() -> None:
    with pytest.raises(ValueError, match="longer than the other processes wait"):
        ReadConfig(attempts=8, timeout_seconds=60)
    ReadConfig(attempts=4, timeout_seconds=60)
