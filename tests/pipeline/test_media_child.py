"""The mechanism alone, with functions that do what hostile media may."""

import operator
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from avdata.errors import MediaError, RunError, UsageError
from avdata.pipeline.media import spool
from avdata.pipeline.media.alive import getting_on
from avdata.pipeline.media.child import Child
from avdata.pipeline.media.limits import MediaLimits
from avdata.pipeline.media.memory import require_room
from avdata.pipeline.media.spool import Spool
from avdata.pipeline.parts import TRANSIENT_STAGES
from avdata.pipeline.shards.decoders import DecodeLimits
from tests.pipeline.test_child import children


@dataclass(frozen=True)
class Limits:
    deadline_s: float = 60.0
    memory_gib: float = 16.0


def failing(function: Callable[..., object], *args: object, limits: Limits) -> MediaError:
    """What a call becomes; the next one is answered by a child again."""
    with closing(Child(function, "trying", limits, max_calls=10)) as child:
        for _ in range(2):
            with pytest.raises(MediaError) as caught:
                child.call("name", *args)
    return caught.value


def test_a_child_serves_until_it_has_served_enough() -> None:
    before = children()
    with closing(Child(os.getpid, "asking", Limits(), max_calls=2)) as child:
        pids = [child.call("name") for _ in range(5)]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]
    assert os.getpid() not in pids
    assert children() == before


def test_a_child_that_dies_says_how() -> None:
    crash = failing(signal.raise_signal, signal.SIGSEGV, limits=Limits())
    assert (crash.stage, crash.reason) == ("decode", "decoder_crashed")
    assert crash.detail.startswith(f"exit {-signal.SIGSEGV}")
    words = failing(sys.exit, "last words", limits=Limits())
    assert (words.reason, words.detail) == ("decoder_crashed", "exit 1: last words")


@pytest.mark.parametrize(
    ("number", "stage", "reason", "detail"),
    [
        (signal.SIGKILL, "memory", "killed", "by the system, most likely short of memory"),
        (signal.SIGTERM, "memory", "killed", "from outside, by SIGTERM"),
        (signal.SIGHUP, "memory", "killed", "from outside, by SIGHUP"),
        (signal.SIGUSR1, "memory", "killed", "from outside, by SIGUSR1"),
        (signal.SIGALRM, "deadline", "took_too_long", "ended by its own alarm"),
    ],
)
def test_a_child_that_is_ended_says_nothing_about_its_file(
    number: signal.Signals, stage: str, reason: str, detail: str
) -> None:
    child = Child(signal.raise_signal, "trying", Limits(), max_calls=10)
    with closing(child), pytest.raises(MediaError) as caught:
        child.call("name", number)
    assert (caught.value.stage, caught.value.reason) == (stage, reason)
    assert caught.value.detail == detail
    assert stage in TRANSIENT_STAGES


def test_the_interrupt_of_a_terminal_is_the_parents_alone() -> None:
    function: Callable[..., object] = operator.call
    with closing(Child(function, "calling", Limits(), max_calls=10)) as child:
        assert child.call("name", signal.raise_signal, signal.SIGINT) is None
        assert child.call("name", operator.add, 1, 2) == 3


def kept(size: int) -> int:
    """Bytes in a temporary file, where none may have more than 64 KiB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
    spool.IN_MEMORY_BYTES = 1
    some = Spool(np.uint8)
    some.append(np.zeros(size, np.uint8))
    return len(some[:])


def test_a_temporary_folder_without_room_is_no_fault_of_a_file() -> None:
    with closing(Child(kept, "keeping", Limits(), max_calls=10)) as child:
        with pytest.raises(RunError, match=r"cannot be kept there \(File too large\); .*TMPDIR"):
            child.call("name", 1 << 17)
        assert child.call("name", 1 << 15) == 1 << 15


def test_time_and_memory_are_bounded() -> None:
    hang = failing(time.sleep, 4, limits=Limits(deadline_s=0.3))
    assert (hang.stage, hang.reason) == ("deadline", "took_too_long")
    assert hang.detail == "killed after 0.3 s"
    bomb = failing(operator.mul, b"bomb", 2**31, limits=Limits(memory_gib=2.5))
    assert (bomb.stage, bomb.reason) == ("memory", "out_of_memory")
    assert bomb.detail == "over 2.5 GiB"


def long_work(steps: int, then_s: float) -> int:
    """A film of hours to the deadline of a test."""
    for _ in range(steps):
        time.sleep(0.5)
        getting_on()
    time.sleep(then_s)
    return steps


def test_who_gets_on_has_time_and_who_hangs_after_that_has_not() -> None:
    with closing(Child(long_work, "working", Limits(deadline_s=2.0), max_calls=10)) as child:
        assert child.call("long", 5, 0.0) == 5
        with pytest.raises(MediaError, match="took_too_long: killed after 2 s"):
            child.call("hang", 1, 60.0)


def test_what_is_printed_is_no_answer() -> None:
    with closing(Child(os.write, "printing", Limits(), max_calls=10)) as child:
        assert [child.call("name", 1, b"noise\n") for _ in range(2)] == [6, 6]


def test_a_bug_names_what_it_was_at_and_the_next_call_is_served() -> None:
    with closing(Child(operator.truediv, "dividing", Limits(), max_calls=10)) as child:
        with pytest.raises(RunError, match=r"^some/uri: a bug in dividing(.|\n)*ZeroDivision"):
            child.call("some/uri", 1, 0)
        assert child.call("name", 1, 2) == 0.5


def refuse(error: Exception) -> None:
    raise error


def test_errors_on_purpose_are_what_they_are() -> None:
    with closing(Child(refuse, "refusing", Limits(), max_calls=10)) as child:
        for error in (UsageError("the way out"), MediaError("cut", "short", "by much")):
            with pytest.raises(type(error), match=f"^{error}$"):
                child.call("name", error)


def shrink_nothing() -> None:
    cv2.resize(np.zeros((1, 1), np.uint8), (1 << 14, 1 << 14), interpolation=cv2.INTER_NEAREST)


@pytest.mark.parametrize("function", [shrink_nothing, require_room])
def test_want_of_memory_is_no_bug(function: Callable[[], None]) -> None:
    short = failing(function, limits=Limits(memory_gib=0.1))
    assert (short.stage, short.reason) == ("memory", "out_of_memory")


@pytest.mark.parametrize("name", ["deadline_s", "memory_gib"])
@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan"), 1e12])
@pytest.mark.parametrize("kind", [MediaLimits, DecodeLimits])
def test_bounds_that_cannot_be_kept_are_refused(
    kind: Callable[..., object], name: str, value: float
) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be (positive|at most \d+), not "):
        kind(**{name: value})


def test_a_child_that_does_not_start_is_no_bad_media() -> None:
    def local() -> None:
        """No other process can find it."""

    with (
        closing(Child(local, "losing", Limits(), max_calls=1)) as child,
        pytest.raises(RunError, match="the losing process does not start: exit 1: "),
    ):
        child.call("name")


def test_a_lost_child_is_known_to_be() -> None:
    with closing(Child(os.getpid, "asking", Limits(), max_calls=10)) as child:
        lost = [child.lost]
        pid = child.call("name")
        lost.append(child.lost)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        lost.append(child.lost)
        child.close()
        assert [*lost, child.lost] == [False, False, True, False]


PARENT = """
import os, signal
from tests.pipeline.test_media_child import Child, Limits
child = Child(os.getpid, "asking", Limits(), max_calls=10)
print(child.call("name"), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_child_ends_with_its_parent() -> None:
    parent = subprocess.run([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, check=False)
    assert parent.returncode == -signal.SIGKILL
    status = Path("/proc", parent.stdout.decode().strip(), "stat")
    while status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.05)


def test_an_answer_that_cannot_be_sent_is_a_bug() -> None:
    child = Child(threading.Lock, "locking", Limits(), max_calls=10)
    with closing(child), pytest.raises(RunError, match="name: a bug in locking") as caught:
        child.call("name")
    assert "cannot pickle" in str(caught.value)


def test_an_answer_that_nobody_waited_for_is_not_that_of_the_next_call() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        function: Callable[..., object] = operator.call
        with closing(Child(function, "calling", Limits(), max_calls=10)) as child:
            assert child.call("first", operator.add, 1, 2) == 3
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            with pytest.raises(KeyboardInterrupt):
                child.call("second", time.sleep, 1.0)
            assert child.call("third", operator.add, 3, 4) == 7
    finally:
        signal.signal(signal.SIGUSR1, before)
