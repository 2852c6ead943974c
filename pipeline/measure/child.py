"""Measuring in a child process, so that no media file can take the job with it.

FFmpeg meets hostile bytes here: a crash, a hang or a memory bomb costs the child and that one
source. The child lives for many sources, says when it is ready, and answers one JSON line for each
request line: {"clips": [...]} or {"failed": {...}}; {"bug": ...} has a traceback of ours and stops
the job.

    python -m avdata.pipeline.measure.child    (started by `MeasuringChild`, not by hand)
"""

import contextlib
import dataclasses
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

import pydantic

from avdata import config as configuration
from avdata.errors import MediaError, RunError
from avdata.pipeline.measure.source import IngestConfig, measure_source
from avdata.pipeline.record import Clip

CLIPS = pydantic.TypeAdapter(list[Clip])
SOURCES_PER_CHILD = 200
"""A fresh child now and then bounds what a decoder leaks."""
START_SECONDS = 120.0
SECONDS_WITHOUT_PARENT = 60


class MeasuringChild:
    """Measures sources one after another in a child that is replaced when it dies."""

    def __init__(self, config: IngestConfig) -> None:
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._served = 0
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closes with this object)

    def measure(self, path: Path, uri: str) -> list[Clip]:
        """As `measure_source`; crash, hang and exhaustion become MediaError."""
        process = self._running()
        assert process.stdin is not None
        request = {"path": str(path), "uri": uri, "config": configuration.to_plain(self._config)}
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None
        answer = json.loads(self._answer(process, self._config.limits.deadline_s))
        self._served += 1
        if "bug" in answer:
            self.close()
            raise RunError(f"{uri}: a bug in measuring, not a bad clip:\n{answer['bug']}")
        if "failed" in answer:
            raise MediaError(**answer["failed"])
        return CLIPS.validate_python(answer["clips"])

    def close(self) -> None:
        """Ends the child, if one runs."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def __del__(self) -> None:
        self.close()
        self._errors.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._served >= SOURCES_PER_CHILD:
            self.close()
        if self._process is None:
            self._served = 0
            self._errors.seek(0)
            self._errors.truncate()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "avdata.pipeline.measure.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
            )
            self._greeted(self._process)
        return self._process

    def _greeted(self, process: subprocess.Popen[bytes]) -> None:
        """Waits until the child has started: the deadline is for media alone."""
        try:
            self._answer(process, START_SECONDS)
        except MediaError as error:
            raise RunError(f"the measuring process does not start: {error.detail}") from error

    def _answer(self, process: subprocess.Popen[bytes], seconds: float) -> bytes:
        assert process.stdout is not None
        until = time.monotonic() + seconds
        answer = b""
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not answer.endswith(b"\n"):
                if not selector.select(timeout=max(0.0, until - time.monotonic())):
                    self.close()
                    raise MediaError("deadline", "took_too_long", f"killed after {seconds:g} s")
                piece = os.read(process.stdout.fileno(), 1 << 20)
                if not piece:
                    raise self._died()
                answer += piece
        return answer

    def _died(self) -> MediaError:
        assert self._process is not None
        code = self._process.wait()
        self._errors.seek(0)  # The child wrote through its own copy of this file's position.
        tail = self._errors.read()[-300:].decode(errors="replace").strip().replace("\n", " | ")
        self.close()
        if code == -signal.SIGKILL:  # Nothing that media does: a machine short of memory, a person.
            return MediaError("memory", "killed", "by the system, most likely short of memory")
        return MediaError("decode", "decoder_crashed", f"exit {code}: {tail}")


def main() -> None:
    """Serve requests until standard input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    # Nothing else may write where the answers go.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _say(answers, {"ready": True})
    for line in sys.stdin:
        answer = _serve(json.loads(line))
        signal.alarm(0)
        _say(answers, answer)


def _say(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _serve(request: dict[str, Any]) -> dict[str, Any]:
    settings = configuration.from_plain(IngestConfig, request["config"], "request")
    _bound_memory(settings.limits.memory_gib)
    # A parent that was killed keeps no deadline any more; this one kills, whatever FFmpeg does.
    signal.alarm(int(settings.limits.deadline_s) + SECONDS_WITHOUT_PARENT)
    try:
        clips = measure_source(Path(request["path"]), request["uri"], settings)
    except MediaError as error:
        return {"failed": {"stage": error.stage, "reason": error.reason, "detail": error.detail}}
    except MemoryError:
        detail = f"over {settings.limits.memory_gib:g} GiB"
        return {"failed": {"stage": "memory", "reason": "out_of_memory", "detail": detail}}
    except OSError as error:
        return {"failed": {"stage": "read", "reason": "unreadable", "detail": str(error)}}
    except Exception:  # noqa: BLE001 (the process boundary: the parent stops the job with it)
        return {"bug": traceback.format_exc()}
    return {"clips": [dataclasses.asdict(clip) for clip in clips]}


def _bound_memory(gib: float) -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    with contextlib.suppress(ValueError):  # A lower hard limit is in force already.
        resource.setrlimit(resource.RLIMIT_AS, (int(gib * 2**30), hard))


if __name__ == "__main__":
    main()
