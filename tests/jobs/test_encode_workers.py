"""`avdata encode` on Ray: the same bytes however many workers there are and whoever is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from avdata.jobs.caption import caption
from avdata.jobs.engine import Engine
from avdata.jobs.ingest import ingest
from avdata.pipeline.measure.source import IngestConfig
from avdata.pipeline.shards.dataset import open_dataset
from avdata.pipeline.shards.verify import verify_shards
from tests.jobs.test_chaos import descendants
from tests.pipeline.media import Sound, bouncing_ball, clicks, times_at, write_movie

SETTINGS = ["--set", "plan.samples_per_shard=1"]
MOST_S = 200


def several_films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of captioned clips."""
    raw, root = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("manifest")
    pictures = bouncing_ball()
    for number in range(5):
        sound = Sound(clicks([0.75 + number / 10], 2.5))
        write_movie(raw / f"{number}.mp4", pictures, times_at(24, len(pictures)), sound)
    ingest([raw], root, IngestConfig(num_frames=17), engine=Engine(inline=True))
    caption(root)
    return root


@pytest.fixture(scope="module")
def selected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of several films, each to become a shard of its own."""
    return several_films(tmp_path_factory)


def started(manifest: Path, out: Path, workers: int, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "avdata.jobs.cli", "encode", str(manifest), "--out", str(out)]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        [*command, *SETTINGS, "--workers", str(workers), *options],
        stdout=quiet,
        stderr=quiet,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def by_one(selected: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("by-one") / "shards"
    assert started(selected, out, workers=1).wait(MOST_S) == 0
    return out


def made(root: Path) -> dict[str, bytes]:
    """Every tar, every index, and the list of them."""
    paths = [*root.glob("*/*"), root / "dataset.json"]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def encoding_workers(run: subprocess.Popen[bytes]) -> list[int]:
    found = []
    for pid in descendants(run.pid):
        try:
            command = Path("/proc", str(pid), "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if command.startswith(b"ray::MapWorker"):
            found.append(pid)
    return found


@pytest.mark.slow  # The next test has three workers, too.
@pytest.mark.timeout(600)
def test_three_workers_give_the_bytes_of_one(selected: Path, by_one: Path, tmp_path: Path) -> None:
    assert started(selected, tmp_path / "shards", workers=3).wait(MOST_S) == 0
    assert made(tmp_path / "shards") == made(by_one)


@pytest.mark.timeout(900)
def test_a_worker_killed_half_way_changes_nothing(
    selected: Path, by_one: Path, tmp_path: Path
) -> None:
    out, wanted = tmp_path / "shards", made(by_one)
    num_shards = sum(name.endswith(".tar") for name in wanted)
    run, deadline = started(selected, out, workers=3), time.monotonic() + MOST_S
    while not (indices := list(out.glob("*/*.index.json"))) and time.monotonic() < deadline:
        time.sleep(0.01)
    victims = encoding_workers(run)
    assert victims
    os.kill(victims[0], signal.SIGKILL)
    assert 0 < len(indices) < num_shards
    assert run.wait(MOST_S) in (0, 1)  # Ray makes another worker; else the next run goes on.
    assert started(selected, out, workers=2).wait(MOST_S) == 0
    assert {name: data for name, data in made(out).items() if ".tmp-" not in name} == wanted
    assert verify_shards(open_dataset(out), lambda _: None).problems == []
