import dataclasses
import json
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from avdata.errors import CorruptShard, RunError, UsageError
from avdata.pipeline.shards import retry
from avdata.pipeline.shards.dataset import Dataset
from avdata.pipeline.shards.retry import Attempts
from avdata.pipeline.shards.store import LocalStore, Transient
from avdata.trainer.data.cache import RangeCache
from avdata.trainer.data.config import ReadConfig
from avdata.trainer.data.sample_reader import SampleReader
from avdata.trainer.loader import Loader
from tests.trainer.data.loaders import STRICT, a_loader, everything, flip, same, write

LENIENT = ReadConfig(threads=2, max_bad_samples=3, max_bad_share=1)


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
    with pytest.raises(CorruptShard, match=r"4 damaged samples, .* max_bad_share allow 3"):
        list(loader.batches(0, len(epoch(loader))))


def test_of_few_samples_none_may_be_damaged_unless_asked_for(dataset: Dataset) -> None:
    flip(dataset, "video.npy", most=1)
    loader = a_loader(dataset.root, read=ReadConfig())
    with pytest.raises(CorruptShard, match="max_bad_share allow 0"):
        list(loader.batches(0, len(epoch(loader))))


def test_a_repaired_shard_is_read_again(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    before = list(a_loader(dataset.root).batches(0, 3))
    flip(dataset, "video.npy", most=2)
    list(a_loader(dataset.root, read=LENIENT, quarantine=path).batches(0, 3))
    flip(dataset, "video.npy", most=2)
    after = a_loader(dataset.root, read=LENIENT, quarantine=path).batches(0, 3)
    assert all(map(same, before, after))


class Shaky:
    """A store on a folder that fails in a given way, all but every so many times."""

    def __init__(self, root: Path, failure: str, every: int) -> None:
        self.root = str(root)
        self.calls = 0
        self._sound, self._failure, self._every = LocalStore(str(root)), failure, every

    def read_into(self, name: str, offset: int, pieces: Sequence[memoryview]) -> None:
        self.calls += 1
        fails = self.calls % self._every != 0
        if fails and self._failure == "silent":
            raise Transient(f"{name}: no answer")
        self._sound.read_into(name, offset, pieces)
        if fails:
            pieces[-1][0] ^= 1


def shaky(dataset: Dataset, failure: str, every: int, read: ReadConfig = STRICT) -> Loader:
    loader = a_loader(dataset.root, read=read)
    attempts = Attempts(read.attempts, lambda: loader.source.counters.add("retries"))
    store = Shaky(Path(dataset.root), failure, every)
    reader = SampleReader(store, attempts, loader.source.counters)
    return dataclasses.replace(loader, feed=dataclasses.replace(loader.feed, reader=reader))


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
    loader = shaky(dataset, "silent", 10**9, dataclasses.replace(STRICT, attempts=9, ahead=0))
    batches = loader.batches(0, 1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, batches)
        while loader.metrics()["retries"] == 0:
            assert not waiting.done()
        loader.feed.reader.attempts.stop.set()
        with pytest.raises(RunError, match=r"no answer in [1-4] attempts"):
            waiting.result()


def test_pauses_grow_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def noted(_: threading.Event, seconds: float) -> bool:
        pauses.append(seconds)
        return True

    monkeypatch.setattr(threading.Event, "wait", noted)

    def silent() -> None:
        raise Transient("x")

    for _ in range(2):
        with pytest.raises(RunError):
            Attempts(6)(silent)
    first, second = pauses[:5], pauses[5:]
    assert first == sorted(first)
    assert first != second
    assert sum(first) > 10


@pytest.fixture
def cached(tmp_path: Path) -> ReadConfig:
    return ReadConfig(threads=2, max_bad_samples=0, cache=str(tmp_path / "cache"), cache_gib=1)


def copies(read: ReadConfig) -> list[Path]:
    assert read.cache is not None
    return [path for path in Path(read.cache).rglob("*") if path.is_file()]


def test_a_cache_gives_the_same_batches_without_the_store(
    dataset: Dataset, cached: ReadConfig
) -> None:
    first = a_loader(dataset.root, read=cached)
    steps = len(epoch(first))
    whole = list(first.batches(0, steps))
    for tar in Path(dataset.root).glob("*/train-*.tar"):
        tar.unlink()
    second = a_loader(dataset.root, read=cached)
    assert all(map(same, whole, second.batches(0, steps)))
    assert second.metrics()["cache_hits"] == second.metrics()["samples"]


def test_a_damaged_copy_is_fetched_again(dataset: Dataset, cached: ReadConfig) -> None:
    whole = list(a_loader(dataset.root, read=cached).batches(0, 3))
    for number, path in enumerate(copies(cached)):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data if number % 2 else data[:-9])
    again = a_loader(dataset.root, read=cached)
    assert all(map(same, whole, again.batches(0, 3)))
    assert again.metrics()["cache_misses"] >= len(copies(cached))
    third = a_loader(dataset.root, read=cached)
    assert all(map(same, whole, third.batches(0, 3)))
    assert third.metrics()["cache_misses"] == 0


def test_a_cache_keeps_to_its_size_and_what_was_used_last(tmp_path: Path) -> None:
    size = 1000
    cache = RangeCache(tmp_path / "c", 20 * size, "digest")
    data = [memoryview(bytearray([k]) * size) for k in range(256)]
    for k, one in enumerate(data):
        cache.put("tar", k * size, [one])
        out = memoryview(bytearray(size))
        assert cache.read_into("tar", k * size, [out])
        assert out == one
        kept = [path.stat().st_size for path in (tmp_path / "c").rglob("*") if path.is_file()]
        assert sum(kept) <= 20 * size
    out = memoryview(bytearray(size))
    assert not cache.read_into("tar", 0, [out])
    assert not RangeCache(tmp_path / "c", size, "other").read_into("tar", 255 * size, [out])


def test_a_cache_that_cannot_be_is_one_line(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    read = ReadConfig(cache=str(tmp_path / "file" / "cache"))
    with pytest.raises(UsageError, match=r"data\.read\.cache = "):
        a_loader(dataset.root, read=read)
