import copy
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from avdata.errors import UsageError
from avdata.pipeline.shards.dataset import Dataset, read_sample
from avdata.trainer.data import feed
from avdata.trainer.data.config import DataConfig, MixConfig, ReadConfig
from avdata.trainer.data.located import Located, locate
from avdata.trainer.data.stream import Batch, ShardStream
from avdata.trainer.randomness import VIDEO, generator
from tests.trainer.data.loaders import a_loader, write


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write(tmp_path_factory.mktemp("shards"))


def a_stream(dataset: Dataset, **options: Any) -> ShardStream:
    return ShardStream(dataset.root, 4, seed=3, **options)


def same(one: Batch, other: Batch) -> bool:
    return all(
        torch.equal(one[name], other[name])
        if isinstance(one[name], torch.Tensor)
        else one[name] == other[name]
        for name in one
    )


def test_each_iteration_is_an_epoch_of_all_samples_as_written(dataset: Dataset) -> None:
    entries = {entry.key: entry for entry in dataset.samples("train")}
    stream = a_stream(dataset)
    for number in range(2):
        seen = []
        batches = list(DataLoader(stream, batch_size=None))
        for batch in batches:
            assert batch["epoch"] == number
            for seat, key in enumerate(batch["keys"]):
                sample = read_sample(dataset.root, entries[key])
                assert np.array_equal(batch["video"][seat].numpy(), sample.video)
                assert np.array_equal(batch["audio"][seat].numpy(), sample.audio)
                length = batch["video_text_length"][seat]
                text = batch["video_text"][seat]
                assert np.array_equal(text[:length].numpy(), sample.video_text)
                assert not text[length:].any()
                seen += [key] * int(batch["weight"][seat])
        assert sorted(seen) == sorted(entries)


def test_a_state_taken_anywhere_goes_on_there_with_any_number_of_ranks(dataset: Dataset) -> None:
    whole = list(a_stream(dataset))
    for stop in range(len(whole)):
        first = iter(stream := a_stream(dataset))
        for _ in range(stop):
            next(first)
        ranks = [a_stream(dataset, rank=rank, world=2) for rank in range(2)]
        for one in ranks:
            one.load_state_dict(stream.state_dict())
        rest = list(zip(*ranks, strict=True))
        assert len(rest) == len(whole) - stop
        for batch, halves in zip(whole[stop:], rest, strict=True):
            assert batch["keys"] == [key for half in halves for key in half["keys"]]
            assert torch.equal(batch["video"], torch.cat([half["video"] for half in halves]))
    assert len(stream) == len(whole)


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")
def test_torchdata_resumes_it_within_an_epoch(dataset: Dataset) -> None:
    from torchdata.stateful_dataloader import StatefulDataLoader

    def loader() -> Any:
        return StatefulDataLoader(a_stream(dataset), batch_size=None)

    batches = iter(stopped := loader())
    next(batches)
    saved = stopped.state_dict()
    rest = list(batches)
    resumed = loader()
    resumed.load_state_dict(saved)
    for following in (rest, list(stopped)):
        for batch, other in zip(following, list(resumed), strict=True):
            assert same(batch, other)


def test_an_older_iterator_does_not_move_the_state(dataset: Dataset) -> None:
    stream = a_stream(dataset)
    older = iter(stream)
    next(older)
    saved = stream.state_dict()
    next(older)
    stream.load_state_dict(saved)
    assert next(older)["step"] == 2
    assert stream.state_dict() == saved
    newer = iter(stream)
    assert [next(one)["step"] for one in (newer, older, newer)] == [1, 3, 2]
    assert stream.state_dict()["step"] == 3


def test_a_copy_goes_on_as_the_stream_does(dataset: Dataset) -> None:
    stream = a_stream(dataset, rank=1, world=2)
    next(iter(stream))
    for copied in (copy.deepcopy(stream), pickle.loads(pickle.dumps(stream))):
        assert copied.state_dict() == stream.state_dict()
        assert all(map(same, copied, copy.copy(stream)))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_mean_loss_of_a_step_does_not_depend_on_the_number_of_ranks(
    dataset: Dataset, world: int
) -> None:
    ranks = [a_stream(dataset, rank=rank, world=world) for rank in range(world)]
    for whole, *parts in zip(a_stream(dataset), *ranks, strict=True):
        losses = [batch["audio"].float().square().mean((1, 2)) for batch in (whole, *parts)]
        mean = losses[0][whole["weight"] == 1].mean()
        shared = zip(losses[1:], parts, strict=True)
        of_ranks = sum((loss * part["share"]).sum() for loss, part in shared) / world
        assert torch.allclose(of_ranks, mean, rtol=1e-6)
        assert sum(float(part["share"].sum()) for part in parts) == pytest.approx(world)


@pytest.mark.parametrize("world", [1, 3])
def test_random_numbers_by_position_are_those_of_avdata_train(dataset: Dataset, world: int) -> None:
    for rank in range(world):
        own = a_loader(dataset.root, rank, world, seed=3).batches(0, 10)
        for batch, theirs in zip(a_stream(dataset, rank=rank, world=world), own, strict=False):
            for seat, position in enumerate(batch["positions"].tolist()):
                draws = generator(VIDEO, 3, batch["epoch"], position)
                drawn = draws.standard_normal(batch["video"][seat].shape, np.float32)
                assert np.array_equal(drawn, theirs.video.noise[seat].numpy())


def test_memory_that_is_used_again_is_never_pinned(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies that a GPU makes later would read what is written there by then."""
    asked: list[bool] = []
    empty = torch.empty

    def noted(*size: Any, **options: Any) -> torch.Tensor:
        asked.append(options.pop("pin_memory", False))
        return empty(*size, **options)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", noted)
    list(a_stream(dataset))
    assert asked
    assert not any(asked)


CRASH = """
import sys, threading
from avdata.trainer.data.stream import ShardStream

class Away:
    root, calls, asked = "s3://away", 0, threading.Event()

    def read_into(self, name, offset, pieces):
        self.calls += 1
        if self.calls > 4:
            self.asked.set()
            threading.Event().wait()
        sound.read_into(name, offset, pieces)

stream = ShardStream(sys.argv[1], 4)
reader = stream.source.reader
sound, reader._store = reader._store, Away()
batches = iter(stream)
next(batches)
reader._store.asked.wait()
raise ValueError("a bug of the user")
"""


def test_a_crash_of_the_user_ends_the_process_though_the_store_is_away(dataset: Dataset) -> None:
    command = [sys.executable, "-c", CRASH, str(dataset.root)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1
    assert ended.stderr.endswith("ValueError: a bug of the user\n")


def test_an_error_of_a_reader_is_raised_where_its_batch_is_wanted(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = a_stream(dataset, config=DataConfig(read=ReadConfig(threads=2)))
    monkeypatch.setattr(stream.source.reader, "read", lambda *_: 1 / 0)
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        next(iter(stream))
    assert threading.active_count() == before


def test_worker_processes_are_refused(dataset: Dataset) -> None:
    with pytest.raises(UsageError, match="num_workers=0"):
        next(iter(DataLoader(a_stream(dataset), batch_size=None, num_workers=1)))


@pytest.mark.parametrize("batch_size", [1, 4])
def test_batches_of_batches_are_refused(dataset: Dataset, batch_size: int) -> None:
    with pytest.raises(UsageError, match="batch_size=None"):
        next(iter(DataLoader(a_stream(dataset), batch_size=batch_size)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": -1}, "rank = -1 is no whole number from 0 on"),
        ({"rank": 2, "world": 2}, "rank = 2 of world = 2"),
        ({"rank": "0"}, "rank = '0' is no whole number"),
        ({"world": 0}, "world = 0 is no"),
        ({"batch_size": 0}, "batch_size = 0 is no"),
        ({"batch_size": -4}, "batch_size = -4 is no"),
        ({"batch_size": 4.0}, "batch_size = 4.0 is no"),
        ({"seed": -1}, "seed = -1 is no"),
        ({"roles": ()}, "roles = .*: give some of video, audio"),
        ({"roles": ("latents",)}, "roles = .*latents.*: give some of video, audio"),
        ({"roles": ("video", "video")}, "each once"),
        ({"config": DataConfig(MixConfig(batch_tokens=10**15))}, "a batch of .*batch_tokens"),
    ],
)
def test_what_cannot_be_is_named(dataset: Dataset, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ShardStream(dataset.root, **{"batch_size": 4, **options})


@pytest.mark.parametrize(
    "damage",
    [
        *({"version": 1}, {"version": None}, {"identity": None}),
        *({"step": -3}, {"step": None}, {"step": True}),
    ],
)
def test_what_is_no_state_of_this_version_is_refused(
    dataset: Dataset, damage: dict[str, Any]
) -> None:
    stream = a_stream(dataset)
    with pytest.raises(UsageError, match=r"state .*(version|step)"):
        stream.load_state_dict({**stream.state_dict(), **damage})


@pytest.mark.parametrize("other", [None, 5, []])
def test_what_is_no_state_at_all_is_named(dataset: Dataset, other: Any) -> None:
    with pytest.raises(UsageError, match=f"no state of a loader, but .*{type(other).__name__}"):
        a_stream(dataset).load_state_dict(other)


def test_all_that_is_done_for_a_batch_while_its_user_waits_is_counted(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking samples up, too, and not what the user does."""
    stream, clock, looked_up = a_stream(dataset), 0, 0

    def slow(*asked: Any) -> list[Located]:
        nonlocal clock, looked_up
        clock, looked_up = clock + 100, looked_up + 1
        return locate(*asked)

    monkeypatch.setattr(feed, "locate", slow)
    monkeypatch.setattr(feed, "time", SimpleNamespace(perf_counter=lambda: clock))
    for _ in stream:
        clock += 7
    assert stream.source.counters.snapshot()["wait_seconds"] == 100 * looked_up > 0


def test_another_order_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    other = write(tmp_path)
    with pytest.raises(UsageError, match="seed was 3, is 4"):
        ShardStream(other.root, 4, seed=4).load_state_dict(a_stream(dataset).state_dict())
