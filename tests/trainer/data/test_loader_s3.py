"""The loader on a real S3 server, and on one whose answers are spoiled on the way."""

import dataclasses
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from avdata import storage
from avdata.errors import CorruptShard, RunError, UsageError
from avdata.pipeline.shards.browse import open_shards
from avdata.pipeline.shards.dataset import Dataset
from avdata.trainer.data.config import ReadConfig
from tests.s3 import needs_server
from tests.trainer.data.loaders import a_loader, same, write
from tests.trainer.data.proxy import FAULTS, Proxy, Spoil, denied, empty, past_the_end, proxied

pytestmark = needs_server
READ = ReadConfig(threads=2, ahead=1, timeout_seconds=2, max_bad_samples=0)
STEPS = 6


@pytest.fixture
def near(tmp_path: Path) -> Dataset:
    return write(tmp_path / "near")


@pytest.fixture
def far(near: Dataset, s3_bucket: Path) -> str:
    """The same shards in a bucket."""
    for path in Path(near.root).rglob("*"):
        if path.is_file():
            (s3_bucket / path.relative_to(near.root)).write_bytes(path.read_bytes())
    return str(s3_bucket)


@pytest.fixture
def proxy(far: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    assert far  # The shards are put there past the proxy.
    with proxied(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.server_port}")
        fsspec.filesystem("s3").clear_instance_cache()
        yield proxy
    fsspec.filesystem("s3").clear_instance_cache()


def test_the_same_batches_as_from_a_folder(near: Dataset, far: str, tmp_path: Path) -> None:
    loader = a_loader(far, read=READ)
    steps = loader.plan.steps_before(1) + 1
    assert all(map(same, a_loader(near.root).batches(0, steps), loader.batches(0, steps)))
    assert loader.state(3) == a_loader(near.root).state(3)
    cached = dataclasses.replace(READ, cache=str(tmp_path / "cache"))
    list(a_loader(far, read=cached).batches(0, steps))
    again = a_loader(far, read=cached)
    assert all(map(same, loader.batches(0, steps), again.batches(0, steps)))
    assert again.metrics()["cache_misses"] == 0


@pytest.mark.parametrize("fault", FAULTS)
def test_what_the_way_spoils_is_read_again(
    near: Dataset, far: str, proxy: Proxy, fault: str
) -> None:
    loader = a_loader(far, read=READ)
    proxy.spoil = FAULTS[fault]
    assert all(map(same, a_loader(near.root).batches(0, STEPS), loader.batches(0, STEPS)))
    assert proxy.spoiled > 0
    # A broken connection that was used before is made anew by aiohttp itself, once.
    assert fault == "reset" or loader.metrics()["retries"] >= proxy.spoiled
    assert loader.metrics()["substitutes"] == 0


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("flipped", CorruptShard, r"train-.*\.tar: .*\.npy does not have the bytes"),
        ("short", CorruptShard, r"train-.*\.tar: \d+ bytes at \d+, \d+ were asked for"),
        ("busy", RunError, r"train-.*\.tar: .* no answer in 2 attempts"),
        ("reset", RunError, r"train-.*\.tar: .* no answer in 2 attempts"),
        ("hanging", RunError, r"train-.*\.tar: .* no answer in 2 attempts"),
    ],
)
def test_what_never_comes_right_is_named(
    far: str, proxy: Proxy, fault: str, error: type[Exception], message: str
) -> None:
    loader = a_loader(far, read=dataclasses.replace(READ, attempts=2))
    proxy.spoil, proxy.every = FAULTS[fault], None
    with pytest.raises(error, match=f"s3://.*{message}"):
        list(loader.batches(0, 1))


def test_a_missing_shard_is_named(far: str) -> None:
    for tar in storage.place(far).glob("*/train-*.tar"):
        tar.unlink()
    with pytest.raises(CorruptShard, match=r"s3://.*/train-.*\.tar: missing"):
        list(a_loader(far, read=READ).batches(0, 1))


def test_a_shard_that_was_cut_is_damage_and_not_a_store_that_does_not_answer(far: str) -> None:
    for tar in storage.place(far).glob("*/train-*.tar"):
        tar.write_bytes(tar.read_bytes()[:600])
    with pytest.raises(CorruptShard, match=r"s3://.*/train-.*\.tar: has no byte \d+"):
        list(a_loader(far, read=READ).batches(0, 1))
    with pytest.raises(CorruptShard, match=r"s3://.*/train-.*\.tar: .* bytes that were written"):
        _ = open_shards(far, "train")[0]
    allowed = dataclasses.replace(READ, max_bad_samples=99, max_bad_share=1)
    loader = a_loader(far, read=allowed)
    batches = list(loader.batches(0, 2))
    assert loader.metrics()["substitutes"] == sum(len(batch.keys) for batch in batches)


@pytest.mark.parametrize("answer", [past_the_end, empty])
def test_other_servers_say_so_in_other_words(far: str, proxy: Proxy, answer: Spoil) -> None:
    loader = a_loader(far, read=READ)
    proxy.spoil, proxy.every = answer, None
    with pytest.raises(CorruptShard, match=r"s3://.*/train-.*\.tar: "):
        list(loader.batches(0, 1))


def test_a_refusal_stops_at_once(far: str, proxy: Proxy) -> None:
    loader = a_loader(far, read=dataclasses.replace(READ, timeout_seconds=30))
    proxy.spoil, proxy.every = denied, None
    with pytest.raises(UsageError, match=r"s3://.*/train-.*\.tar: refused"):
        list(loader.batches(0, 1))
    assert loader.metrics()["retries"] == 0


def test_wrong_credentials_stop_at_once(far: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = a_loader(far, read=READ)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises((UsageError, RunError), match="AWS_SECRET_ACCESS_KEY"):
        list(a_loader(far, read=READ).batches(0, 1))
    fsspec.filesystem("s3").clear_instance_cache()
    del loader


def test_an_object_server_that_is_away_for_ten_seconds_is_ridden_out(
    near: Dataset, far: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp().parent / "s3-server"
    pids = [int(line) for line in (folder / "pids").read_text().split()]
    (server,) = [
        pid for pid in pids if b"object-server" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    command = Path(f"/proc/{server}/cmdline").read_bytes().decode().split("\0")[:-1]
    loader = a_loader(far, read=READ)
    batches = loader.batches(0, STEPS)
    found = [next(batches)]
    os.kill(server, signal.SIGKILL)
    restarted: list[subprocess.Popen[bytes]] = []

    def restart() -> None:
        time.sleep(10)
        quiet = subprocess.DEVNULL
        restarted.append(subprocess.Popen(command, stdout=quiet, stderr=quiet, cwd=folder / "etc"))

    thread = threading.Thread(target=restart)
    thread.start()
    try:
        found += batches
    finally:
        thread.join()
        pids[pids.index(server)] = restarted[0].pid
        (folder / "pids").write_text("".join(f"{pid}\n" for pid in pids))
    assert all(map(same, a_loader(near.root).batches(0, STEPS), found))
    assert loader.metrics()["retries"] > 0
    restarted[0].returncode = 0  # The server's own command stops it.
