import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from avdata.encoders.spec import ClipShape
from avdata.errors import MediaError, RunError
from avdata.pipeline.media.clip import read_clip
from avdata.pipeline.media.geometry import CENTER_CROP, Fit
from avdata.pipeline.shards.decoders import DecodeLimits, Decoders
from tests.pipeline.media import Sound, bouncing_ball, clicks, times_at, write_movie
from tests.pipeline.test_child import children

SHAPE = ClipShape(num_frames=17, height=64, width=96)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pictures = bouncing_ball()
    path = tmp_path_factory.mktemp("good") / "good.mp4"
    return write_movie(path, pictures, times_at(24, len(pictures)), Sound(clicks([0.75], 2.5)))


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    with closing(Decoders(DecodeLimits())) as decoders:
        yield decoders


def decodes(decoders: Decoders, path: Path) -> bool:
    return len(decoders.read(path, 0.25, SHAPE, CENTER_CROP).frames) == SHAPE.num_frames


@pytest.mark.parametrize("fit", [CENTER_CROP, Fit("pad", "end")])
def test_a_child_reads_what_would_be_read_here(decoders: Decoders, good: Path, fit: Fit) -> None:
    wanted = read_clip(good, 0.25, SHAPE, fit=fit)
    for _ in range(2):
        found = decoders.read(good, 0.25, SHAPE, fit)
        np.testing.assert_array_equal(found.frames, wanted.frames)
        np.testing.assert_array_equal(found.samples, wanted.samples)


def test_a_bad_clip_says_why_and_the_next_is_read(decoders: Decoders, good: Path) -> None:
    for path, start, reason in (
        (good, 99.0, "clip_beyond_end"),
        (Path(__file__), 0.0, "not_media"),
        (good.with_name("gone.mp4"), 0.0, "unreadable"),
    ):
        with pytest.raises(MediaError) as caught:
            decoders.read(path, start, SHAPE, CENTER_CROP)
        assert caught.value.reason == reason
    assert decodes(decoders, good)


def halted(decoders: Decoders, good: Path, before: set[int]) -> int:
    """The child after it has served once: it takes the next clip and does nothing with it."""
    assert decodes(decoders, good)
    (pid,) = children() - before
    os.kill(pid, signal.SIGSTOP)
    return pid


def test_a_crash_costs_one_clip(decoders: Decoders, good: Path) -> None:
    pid = halted(decoders, good, children())
    crash = threading.Timer(0.3, os.kill, (pid, signal.SIGSEGV))
    wake = threading.Timer(0.4, os.kill, (pid, signal.SIGCONT))
    for timer in (crash, wake):
        timer.start()
    with pytest.raises(MediaError) as caught:
        decoders.read(good, 0.25, SHAPE, CENTER_CROP)
    wake.join()
    assert caught.value.reason == "decoder_crashed"
    assert f"exit {-signal.SIGSEGV}" in caught.value.detail
    assert decodes(decoders, good)


def test_a_hang_costs_one_clip_and_the_deadline(good: Path) -> None:
    before = children()
    with closing(Decoders(DecodeLimits(deadline_s=5.0))) as decoders:
        halted(decoders, good, before)
        with pytest.raises(MediaError, match="killed after 5 s") as caught:
            decoders.read(good, 0.25, SHAPE, CENTER_CROP)
        assert (caught.value.stage, caught.value.reason) == ("deadline", "took_too_long")
        assert children() == before
        assert decodes(decoders, good)


def test_a_child_lost_between_two_clips_costs_none(decoders: Decoders, good: Path) -> None:
    before = children()
    assert decodes(decoders, good)
    (pid,) = children() - before
    os.kill(pid, signal.SIGKILL)
    while Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        time.sleep(0.01)
    assert decodes(decoders, good)


def test_memory_is_bounded(good: Path) -> None:
    """What FFmpeg makes of it is its own; it must not be ours."""
    with closing(Decoders(DecodeLimits(memory_gib=0.01))) as bound, pytest.raises(MediaError):
        bound.read(good, 0.25, SHAPE, CENTER_CROP)


def test_a_bug_is_no_bad_clip(decoders: Decoders, good: Path) -> None:
    """No file can have this name, so asking for it is a mistake in the program."""
    with pytest.raises(RunError, match="a bug in decoding") as caught:
        decoders.read(Path("nul\0byte.mp4"), 0.0, SHAPE, CENTER_CROP)
    assert "Traceback" in str(caught.value)
    assert decodes(decoders, good)


def test_nothing_is_left_behind(good: Path) -> None:
    before = children()
    with closing(Decoders(DecodeLimits())) as decoders:
        decodes(decoders, good)
        assert children() != before
    assert children() == before


@pytest.mark.parametrize("limit", ["deadline_s", "memory_gib"])
def test_limits_that_make_no_sense_are_refused(limit: str) -> None:
    with pytest.raises(ValueError, match=f"{limit} must be positive, not 0"):
        DecodeLimits(**{limit: 0})
