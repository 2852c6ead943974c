import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from avdata.errors import MediaError, RunError
from avdata.pipeline.measure.child import MeasuringChild
from avdata.pipeline.measure.source import IngestConfig, measure_source
from avdata.pipeline.media.limits import MediaLimits
from tests.pipeline.media import Sound, bouncing_ball, clicks, plain, times_at, write_movie

CONFIG = IngestConfig(num_frames=17)


def limited(limits: MediaLimits) -> IngestConfig:
    return IngestConfig(num_frames=17, limits=limits)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pictures = bouncing_ball()
    path = tmp_path_factory.mktemp("good") / "good.mp4"
    sound = Sound(clicks([0.75, 1.5], 2.5))
    return write_movie(path, pictures, times_at(24, len(pictures)), sound)


@pytest.fixture(scope="module")
def child() -> Iterator[MeasuringChild]:
    with closing(MeasuringChild(CONFIG)) as child:
        yield child


def endless(path: Path) -> Path:
    """A file that never gives a byte: reading it hangs."""
    os.mkfifo(path)
    return path


def children() -> set[int]:
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {int(pid) for task in tasks for pid in task.read_text().split()}


def kill_when_it_reads(path: Path, before: set[int]) -> threading.Thread:
    """Kills our new child as soon as it has opened a file, as a crash in a decoder would."""

    def wait_and_kill() -> None:
        with path.open("wb"):  # Opens when the other side does.
            (pid,) = children() - before
            os.kill(pid, signal.SIGSEGV)

    thread = threading.Thread(target=wait_and_kill, daemon=True)
    thread.start()
    return thread


def test_the_child_answers_as_measuring_here_would(child: MeasuringChild, good: Path) -> None:
    wanted = measure_source(good, "some/uri.mp4", CONFIG)
    assert wanted
    assert child.measure(good, "some/uri.mp4") == wanted
    assert child.measure(good, "some/uri.mp4") == wanted


def test_a_bad_file_is_a_media_error_and_the_next_is_measured(
    child: MeasuringChild, good: Path, tmp_path: Path
) -> None:
    text, short = tmp_path / "text.mp4", tmp_path / "short.mp4"
    text.write_text("no video" * 200)
    write_movie(short, [plain(50)] * 5, times_at(24, 5))
    for path, stage, reason in (
        (text, "probe", "not_media"),
        (short, "cut", "shorter_than_a_clip"),
        (tmp_path / "gone.mp4", "read", "missing"),
        (tmp_path, "read", "unreadable"),
    ):
        with pytest.raises(MediaError) as caught:
            child.measure(path, path.name)
        assert (caught.value.stage, caught.value.reason) == (stage, reason)
    assert child.measure(good, "good")


def test_a_crash_costs_one_source(child: MeasuringChild, good: Path, tmp_path: Path) -> None:
    child.close()
    path = endless(tmp_path / "crash.mp4")
    killer = kill_when_it_reads(path, children())
    with pytest.raises(MediaError) as caught:
        child.measure(path, "crash")
    killer.join()
    assert caught.value.reason == "decoder_crashed"
    assert f"exit {-signal.SIGSEGV}" in caught.value.detail
    assert child.measure(good, "good")


def test_a_child_that_died_between_two_sources_is_replaced(
    child: MeasuringChild, good: Path
) -> None:
    child.close()
    before = children()
    clips = child.measure(good, "good")
    (pid,) = children() - before
    os.kill(pid, signal.SIGKILL)
    while Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        time.sleep(0.01)
    with pytest.raises(MediaError, match="memory: killed"):
        child.measure(good, "good")
    assert child.measure(good, "good") == clips


def test_a_hang_costs_one_source_and_the_deadline(tmp_path: Path) -> None:
    impatient = limited(MediaLimits(deadline_s=0.2))
    path, before = endless(tmp_path / "hang.mp4"), children()
    with closing(MeasuringChild(impatient)) as child:
        for _ in range(2):
            with pytest.raises(MediaError) as caught:
                child.measure(path, "hang")
            assert (caught.value.stage, caught.value.reason) == ("deadline", "took_too_long")
            assert "0.2 s" in caught.value.detail
            assert children() == before


def test_memory_is_bounded(good: Path) -> None:
    """What a decoder makes of it, an error or a crash, is its own; it must not be ours."""
    with closing(MeasuringChild(limited(MediaLimits(memory_gib=0.01)))) as child:
        with pytest.raises(MediaError) as caught:
            child.measure(good, "good")
        assert caught.value.reason in ("out_of_memory", "decoder_crashed")


def test_a_bug_is_no_media_error(child: MeasuringChild, good: Path) -> None:
    """No file can have this name, so asking for it is a mistake in the program."""
    with pytest.raises(RunError, match="a bug in measuring") as caught:
        child.measure(Path("nul\0byte.mp4"), "nul")
    assert "Traceback" in str(caught.value)
    assert child.measure(good, "good")


def test_nothing_is_left_behind(good: Path) -> None:
    before = children()
    child = MeasuringChild(CONFIG)
    child.measure(good, "good")
    assert children() != before
    del child
    assert children() == before
