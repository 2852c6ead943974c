"""Processes of `avdata ingest` are killed at random: the manifest is the same in the end."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.pipeline.media import Sound, bouncing_ball, clicks, textured, times_at, write_movie

SETTINGS = ["--set", "num_frames=17", "--workers", "2"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight films, in half of them a moving camera, one under two names, and two files that are
    none.
    """
    folder = tmp_path_factory.mktemp("raw")
    wide = textured(5, 180, 680)
    for number in range(8):
        pictures = bouncing_ball()
        if number % 2:
            pictures = [wide[:, 6 * k : 6 * k + 320] for k in range(len(pictures))]
        sound = Sound(clicks([0.75 + number / 10], 2.5))
        write_movie(folder / f"{number}.mp4", pictures, times_at(24, len(pictures)), sound)
    (folder / "again.mp4").hardlink_to(folder / "3.mp4")
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("not a video at all\n" * 50)
    return folder


@pytest.fixture(scope="module")
def unharmed(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The manifest of an ingest that nobody killed, and the seconds it took."""
    out, began = tmp_path_factory.mktemp("unharmed") / "m", time.monotonic()
    assert started(raw, out).wait() == 0
    return out, time.monotonic() - began


def started(raw: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "avdata.jobs.cli", "ingest", str(raw), "--out", str(out)]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        [*command, *SETTINGS], stdout=quiet, stderr=quiet, start_new_session=True
    )


def descendants(root: int) -> list[int]:
    """Of a process, wherever Ray has put them."""
    parent_of = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent_of[int(folder.name)] = int(
                (folder / "stat").read_text().rpartition(")")[2].split()[1]
            )
        except (FileNotFoundError, ProcessLookupError):
            continue
    found = [root]
    for one in found:
        found += [child for child, parent in parent_of.items() if parent == one]
    return found[1:]


def harmed(run: subprocess.Popen[bytes], chance: random.Random) -> str | None:
    """Kills all of it or one worker; answers what, or None when there was no worker to kill."""
    if chance.random() < 0.4:
        workers: list[int] = []
        while run.poll() is None and not workers:
            workers = [pid for pid in descendants(run.pid) if _is_worker(pid)]
        time.sleep(chance.random())
        if workers:
            _kill(chance.choice(workers))
        code = run.wait(timeout=200)
        assert code in (0, 1)  # 1: it died as it started.
        return f"worker, then exit {code}" if workers else None
    os.killpg(run.pid, signal.SIGKILL)
    return f"all, exit {run.wait()}"


def _is_worker(pid: int) -> bool:
    try:
        command = Path("/proc", str(pid), "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return command.startswith(b"ray::MapWorker") or b"avdata.pipeline.media.child" in command


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def rows(root: Path, name: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = pq.read_table(root / name).to_pylist()
    return found


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("seed", "kills"),
    [(0, 1), *(pytest.param(seed, 3, marks=pytest.mark.slow) for seed in range(1, 11))],
)
def test_whatever_is_killed_the_manifest_is_the_same(
    raw: Path, unharmed: tuple[Path, float], tmp_path: Path, seed: int, kills: int
) -> None:
    whole, seconds = unharmed
    out, chance = tmp_path / "m", random.Random(seed)
    moments: list[str] = []
    while len(moments) < kills:
        run, moment, what = started(raw, out), chance.uniform(0.1, 0.9) * seconds, None
        try:
            assert run.wait(timeout=moment) == 0, moments
        except subprocess.TimeoutExpired:
            what = harmed(run, chance)
        if what is not None:
            moments.append(f"{moment:.1f} s: {what}")
            continue
        shutil.rmtree(out)  # It had ended: again from nothing, and sooner.
        seconds *= 0.8
    run = started(raw, out)
    assert run.wait(timeout=300) == 0, moments
    for name in ("clips.parquet", "quarantine.parquet"):
        assert rows(out, name) == rows(whole, name), moments
    ids = [row["clip_id"] for row in rows(out, "clips.parquet")]
    assert len(ids) == len(set(ids)) > 0
    for folder in ("parts", "quarantine"):
        kept = [{path.name for path in root.glob(f"{folder}/*.parquet")} for root in (out, whole)]
        assert kept[0] == kept[1], moments
    sys.stderr.write("\n".join(moments) + "\n")
