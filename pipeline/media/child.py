"""One function of ours, called in a child process, so that no media file can take the job with it.

FFmpeg meets hostile bytes: a crash, a hang or a memory bomb costs the child and the one file it was
at, and becomes a MediaError. The child lives for many calls, starts when it is first needed and
again after it was lost. Errors that avdata raises on purpose are the caller's as they are; any
other exception is a bug and stops the job.

    python -m avdata.pipeline.media.child MODULE:FUNCTION DESCRIPTOR    (started by `Child`)
"""

import contextlib
import functools
import pickle
import pkgutil
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from avdata.errors import AvdataError, MediaError, RunError
from avdata.pipeline.media.alive import told
from avdata.pipeline.media.memory import is_shortage

P = ParamSpec("P")
T = TypeVar("T")

PASSING = ("took_too_long", "out_of_memory", "killed")
"""Reasons that may be the machine's and not the file's: what failed so is tried again."""
ENDED = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGQUIT),
    *(signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU),
)
"""Signals that nothing in media raises: a system short of memory, a scheduler or a person does."""
MAX_DEADLINE_S = 7 * 86_400
MAX_GIB = 1 << 20
START_SECONDS = 120.0
SECONDS_WITHOUT_PARENT = 60


class ChildLimits(Protocol):
    """What one call may cost."""

    @property
    def deadline_s(self) -> float:
        """Wall-clock time without an answer or word of its getting on: the child is killed."""

    @property
    def memory_gib(self) -> float:
        """Address space of the child."""


def require_usable(limits: ChildLimits) -> None:
    """ValueError for bounds that the system cannot keep."""
    for name, most in (("deadline_s", MAX_DEADLINE_S), ("memory_gib", MAX_GIB)):
        if not (value := getattr(limits, name)) > 0:
            raise ValueError(f"{name} must be positive, not {value}")
        if value > most:
            raise ValueError(f"{name} must be at most {most}, not {value}")


class Child(Generic[P, T]):
    """Calls a function of a module in a child that is replaced when it dies; close it when done.

    Arguments and answer are pickled. After `max_calls` a fresh child bounds what a decoder leaks.
    """

    def __init__(
        self, function: Callable[P, T], doing: str, limits: ChildLimits, max_calls: int
    ) -> None:
        self._function = f"{function.__module__}:{function.__qualname__}"
        self._doing, self._limits, self._max_calls = doing, limits, max_calls
        self._process: subprocess.Popen[bytes] | None = None
        self._held = contextlib.ExitStack()
        self._served, self._asked = 0, False

    def call(self, name: str, /, *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's answer; crash, hang and exhaustion become MediaError.

        RunError names `name` when it is a bug.
        """
        if self._process is None or self._asked or self._served >= self._max_calls:
            self.close()
            self._start()
        self._asked = True  # Until it has answered: who is interrupted leaves an answer to nobody.
        with contextlib.suppress(ConnectionError):  # It has died, as the answer tells.
            self._connection.send((self._limits.deadline_s, self._limits.memory_gib, args, kwargs))
        kind, answer = self._answer(self._limits.deadline_s)
        self._served, self._asked = self._served + 1, False
        if kind == "bug":
            self.close()
            raise RunError(f"{name}: a bug in {self._doing}, not a bad clip:\n{answer}")
        if kind == "failed":
            raise answer
        done: T = answer
        return done

    @property
    def lost(self) -> bool:
        """Whether it has died since its last answer."""
        return self._process is not None and self._process.poll() is not None

    def close(self) -> None:
        """Ends the child, if one runs."""
        self._held.close()
        self._process = None

    def __del__(self) -> None:
        self.close()

    def _start(self) -> None:
        self._served, self._asked = 0, False
        ours, theirs = Pipe()
        with theirs, contextlib.ExitStack() as held:
            self._connection = held.enter_context(ours)
            self._errors = held.enter_context(tempfile.TemporaryFile())
            end = theirs.fileno()
            process = subprocess.Popen(
                [sys.executable, "-m", "avdata.pipeline.media.child", self._function, str(end)],
                pass_fds=[end],
                stdin=subprocess.DEVNULL,
                stdout=self._errors,
                stderr=self._errors,
            )
            self._process = held.enter_context(process)
            held.callback(process.kill)
            self._held = held.pop_all()
        try:  # The deadline is for media alone.
            self._answer(START_SECONDS)
        except MediaError as error:
            raise RunError(f"the {self._doing} process does not start: {error.detail}") from error

    def _answer(self, seconds: float) -> tuple[str, Any]:
        try:
            while self._connection.poll(seconds):
                answer: tuple[str, Any] = self._connection.recv()
                if answer[0] != "alive":
                    return answer
        except (EOFError, OSError):
            raise self._died() from None
        self.close()
        raise MediaError("deadline", "took_too_long", f"killed after {seconds:g} s")

    def _died(self) -> MediaError:
        assert self._process is not None
        code = self._process.wait()
        self._errors.seek(0)  # The child wrote through its own copy of this file's position.
        tail = self._errors.read()[-300:].decode(errors="replace").strip().replace("\n", " | ")
        self.close()
        if code == -signal.SIGKILL:
            return MediaError("memory", "killed", "by the system, most likely short of memory")
        if -code in ENDED:
            return MediaError("memory", "killed", f"from outside, by {signal.Signals(-code).name}")
        if code == -signal.SIGALRM:  # Its own, as in `main`: this process was halted meanwhile.
            return MediaError("deadline", "took_too_long", "ended by its own alarm")
        return MediaError("decode", "decoder_crashed", f"exit {code}: {tail}")


def main(name: str, descriptor: int) -> None:
    """Serves calls until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # A terminal's goes to all; the parent answers it.
    function = pkgutil.resolve_name(name)
    with Connection(descriptor) as parent, contextlib.suppress(EOFError, ConnectionError):
        parent.send(("ready", None))
        while True:
            deadline_s, memory_gib, args, kwargs = parent.recv()
            # A killed parent keeps no deadline any more; this one kills, whatever FFmpeg does.
            seconds = int(deadline_s) + SECONDS_WITHOUT_PARENT
            signal.alarm(seconds)
            with told(functools.partial(_tell, parent, seconds)):
                answer = _called(function, memory_gib, args, kwargs)
            signal.alarm(0)
            parent.send_bytes(answer)


def _tell(parent: "Connection[Any, Any]", seconds: int) -> None:
    signal.alarm(seconds)
    parent.send(("alive", None))


def _called(
    function: Callable[..., object],
    memory_gib: float,
    args: tuple[object, ...],
    kwargs: dict[str, object],
) -> bytes:
    """Pickled: what cannot be is a bug, and no crash of a decoder."""
    _bound_memory(memory_gib)
    try:
        return pickle.dumps(("done", function(*args, **kwargs)))
    except AvdataError as error:
        answer: tuple[str, object] = "failed", error
    except OSError as error:
        answer = "failed", MediaError("read", "unreadable", str(error))
    except Exception as error:  # noqa: BLE001 (the process boundary: the parent stops the job)
        answer = "bug", traceback.format_exc()
        if is_shortage(error):
            answer = "failed", MediaError("memory", "out_of_memory", f"over {memory_gib:g} GiB")
    return pickle.dumps(answer)


def _bound_memory(gib: float) -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    with contextlib.suppress(ValueError):  # A lower hard limit is in force already.
        resource.setrlimit(resource.RLIMIT_AS, (int(gib * 2**30), hard))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
