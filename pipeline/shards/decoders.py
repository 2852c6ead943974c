"""Clips decoded in child processes: what a hostile file does to FFmpeg costs that one clip.

A child serves one clip after another. It starts when it is first needed and again after it was
lost: by a crash, by the deadline, by memory, which all become a MediaError.

    python -m avdata.pipeline.shards.decoders DESCRIPTOR    (started by `Decoders`, not by hand)
"""

import contextlib
import queue
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from avdata.encoders.spec import ClipShape
from avdata.errors import MediaError, RunError
from avdata.pipeline.media.clip import ClipMedia, read_clip
from avdata.pipeline.media.geometry import Fit

CLIPS_PER_CHILD = 1000
"""A fresh child now and then bounds what a decoder leaks."""
START_SECONDS = 120.0
SECONDS_WITHOUT_PARENT = 60


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What one clip may cost."""

    deadline_s: float = 300.0
    memory_gib: float = 16.0
    """Address space of the child."""

    def __post_init__(self) -> None:
        for name in ("deadline_s", "memory_gib"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")


class Decoders:
    """As many children as threads read at once; close it when done."""

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        self._idle: queue.LifoQueue[_Decoder] = queue.LifoQueue()

    def read(self, path: Path, start_s: float, shape: ClipShape, fit: Fit) -> ClipMedia:
        """As `read_clip`; crash, hang and exhaustion become MediaError."""
        try:
            decoder = self._idle.get_nowait()
        except queue.Empty:
            decoder = _Decoder(self._limits)
        try:
            return decoder.read(path, start_s, shape, fit)
        finally:
            self._idle.put(decoder)

    def close(self) -> None:
        """Ends the children that are idle."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()


class _Decoder:
    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._child: Connection[Any, Any] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closes with this object)
        self._served = 0

    def read(self, *request: Any) -> ClipMedia:  # noqa: ANN401 (the arguments of `Decoders.read`)
        child = self._running()
        try:
            child.send((self._limits, *request))
            answer = self._answer(child, self._limits.deadline_s)
        except (EOFError, OSError):
            raise self._died() from None
        self._served += 1
        if isinstance(answer, str):
            self.close()
            raise RunError(f"{request[0]}: a bug in decoding, not a bad clip:\n{answer}")
        if isinstance(answer, MediaError):
            raise answer
        assert isinstance(answer, ClipMedia)
        return answer

    def close(self) -> None:
        """Ends the child, if one runs."""
        if self._child is not None:
            self._child.close()
            self._child = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __del__(self) -> None:
        self.close()
        self._errors.close()

    def _running(self) -> "Connection[Any, Any]":
        lost = self._process is not None and self._process.poll() is not None
        if lost or self._served >= CLIPS_PER_CHILD:
            self.close()
        if self._child is None:
            self._served = 0
            self._errors.seek(0)
            self._errors.truncate()
            self._child, theirs = Pipe()
            with theirs:
                descriptor = theirs.fileno()
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "avdata.pipeline.shards.decoders", str(descriptor)],
                    pass_fds=[descriptor],
                    stdin=subprocess.DEVNULL,
                    stdout=self._errors,
                    stderr=self._errors,
                )
            self._greeted(self._child)
        return self._child

    def _greeted(self, child: "Connection[Any, Any]") -> None:
        """Waits until the child has started: the deadline is for media alone."""
        try:
            self._answer(child, START_SECONDS)
        except (EOFError, OSError, MediaError):
            raise RunError(f"the decoding process does not start: {self._died().detail}") from None

    def _answer(self, child: "Connection[Any, Any]", seconds: float) -> object:
        if not child.poll(seconds):
            self.close()
            raise MediaError("deadline", "took_too_long", f"killed after {seconds:g} s")
        answer: object = child.recv()
        return answer

    def _died(self) -> MediaError:
        code = self._process.wait() if self._process is not None else 0
        self._errors.seek(0)  # The child wrote through its own copy of this file's position.
        tail = self._errors.read()[-300:].decode(errors="replace").strip().replace("\n", " | ")
        self.close()
        if code == -signal.SIGKILL:  # Nothing that media does: a machine short of memory, a person.
            return MediaError("memory", "killed", "by the system, most likely short of memory")
        return MediaError("decode", "decoder_crashed", f"exit {code}: {tail}")


def main(descriptor: int) -> None:
    """Serves clips until the parent is gone."""
    with Connection(descriptor) as parent:
        parent.send("ready")
        while True:
            try:
                request = parent.recv()
            except EOFError:
                return
            answer = _served(*request)
            signal.alarm(0)
            parent.send(answer)


def _served(
    limits: DecodeLimits, path: Path, start_s: float, shape: ClipShape, fit: Fit
) -> ClipMedia | MediaError | str:
    _bound_memory(limits.memory_gib)
    # A parent that was killed keeps no deadline any more; this one kills, whatever FFmpeg does.
    signal.alarm(int(limits.deadline_s) + SECONDS_WITHOUT_PARENT)
    try:
        return read_clip(path, start_s, shape, fit=fit)
    except MediaError as error:
        return error
    except MemoryError:
        return MediaError("memory", "out_of_memory", f"over {limits.memory_gib:g} GiB")
    except OSError as error:
        return MediaError("read", "unreadable", str(error))
    except Exception:  # noqa: BLE001 (the process boundary: the parent stops the job with it)
        return traceback.format_exc()


def _bound_memory(gib: float) -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    with contextlib.suppress(ValueError):  # A lower hard limit is in force already.
        resource.setrlimit(resource.RLIMIT_AS, (int(gib * 2**30), hard))


if __name__ == "__main__":
    main(int(sys.argv[1]))
