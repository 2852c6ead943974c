"""A captioner behind an OpenAI-compatible endpoint: vLLM, SGLang, or a service.

Frames go as JPEG images, sound as one WAV file (`input_audio`), each a part of its own also where
both are asked about together, in POST URL/chat/completions.
Retries wait longer each time, by chance, or as long as Retry-After says, and a 429 holds all
threads back. The request's id travels as X-Request-Id; vLLM and proxies send it back.
"""

import base64
import contextlib
import io
import json
import os
import random
import threading
import time
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, Literal

from jaxtyping import Float32, UInt8
from numpy import ndarray

from avdata.encoders.captioner import Answer, Question
from avdata.errors import UsageError

MARK = "avdata-"
"""Begins every request id, so that ids of the server's own making are not taken for echoes."""
MAX_BODY = 1 << 20
"""Bytes of an answer that are read."""
FIRST_WAIT_S = 0.5


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Configuration of one model behind one endpoint."""

    url: str
    """Up to and with /v1."""
    model: str
    """As the server names it."""
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the key; none is sent where it is not set."""
    timeout_s: float = 120.0
    """For one request, from its start to the end of its answer."""
    max_retries: int = 5
    max_wait_s: float = 60.0
    """The longest wait before a retry, whatever Retry-After says."""
    max_requests: int | None = None
    """Requests of one run, retries included; what is left is asked by the next run."""
    max_tokens: int = 300
    temperature: float = 0.0
    kind: Literal["endpoint"] = "endpoint"

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url must begin with http:// or https://, not {self.url!r}")
        if self.timeout_s <= 0 or self.max_wait_s <= 0:
            raise ValueError("timeout_s and max_wait_s must be positive")
        if self.max_retries < 0 or self.max_tokens < 1:
            raise ValueError("max_retries must be 0 or more, max_tokens 1 or more")

    @property
    def name(self) -> str:
        """What made a caption."""
        return self.model

    def identity(self) -> list[object]:
        """All that its answers depend on, as JSON."""
        return [self.model, self.max_tokens, self.temperature]

    def open(self) -> "OpenEndpoint":
        """UsageError where the HTTP client is not installed."""
        return OpenEndpoint(self)


class OpenEndpoint:
    """A `Captioner`."""

    def __init__(self, config: Endpoint) -> None:
        try:
            import httpx2
        except ImportError as error:
            raise UsageError(f"{error}; pip install 'avdata[captions]'") from error
        self._config = config
        self._library = httpx2
        key = os.environ.get(config.key_variable)
        self._http = httpx2.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(config.timeout_s, connect=min(10.0, config.timeout_s)),
            # A connection of its own for each request: what is left in one, an answer that was
            # sent twice, say, cannot be taken for the answer to the next.
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
        )
        self._lock = threading.Lock()
        self._left = config.max_requests
        self._not_before = 0.0
        self._closed = threading.Event()

    def close(self) -> None:
        """Waits of other threads end at once."""
        self._closed.set()
        self._http.close()

    def ask(self, question: Question) -> Answer:
        """See `Captioner.ask`; refusals and lengths are the caller's to judge."""
        body = json.dumps(self._body(question)).encode()
        answer = Answer(None, "budget", "max_requests are spent")
        for attempt in range(self._config.max_retries + 1):
            self._closed.wait(max(0.0, self._not_before - time.monotonic()))
            if self._closed.is_set() or not self._take():
                return answer
            answer, wait = self._once(question, body)
            if wait is None:
                wait = FIRST_WAIT_S * 2**attempt * random.uniform(0.5, 1.5)
            wait = min(wait, self._config.max_wait_s)
            if answer.reason == "http_429":
                self._not_before = max(self._not_before, time.monotonic() + wait)
            if not answer.may_pass or attempt == self._config.max_retries:
                break
            self._closed.wait(wait)
        return answer

    def _take(self) -> bool:
        with self._lock:
            if self._left is not None:
                self._left -= 1
            return self._left is None or self._left >= 0

    def _once(self, question: Question, body: bytes) -> tuple[Answer, float | None]:
        """One request, and how long the server wants to be left alone."""
        http = self._library
        own = f"{MARK}{question.id}"
        headers = {"X-Request-Id": own, "Content-Type": "application/json"}
        deadline = time.monotonic() + self._config.timeout_s
        url = f"{self._config.url.rstrip('/')}/chat/completions"
        try:
            with self._http.stream("POST", url, content=body, headers=headers) as response:
                data = b"".join(_bounded(response.iter_bytes(), deadline))
        except (http.TimeoutException, TimeoutError) as error:
            return Answer(None, "timeout", str(error)), None
        except (http.InvalidURL, http.UnsupportedProtocol) as error:
            raise UsageError(f"url = {self._config.url}: {error}") from error
        except (http.TransportError, http.DecodingError) as error:
            return Answer(None, "unreachable", f"{type(error).__name__}: {error}"), None
        if response.status_code != 200:
            wait = _retry_after(response.headers.get("Retry-After"))
            return self._refused(response.status_code, data), wait
        said = [response.headers.get("X-Request-Id", "")]
        return _read(data, own, said), None

    def _refused(self, status: int, data: bytes) -> Answer:
        detail = " ".join(data[:300].decode(errors="replace").split())
        if status in (401, 403, 404, 405) or 300 <= status < 400:
            key = self._config.key_variable
            raise UsageError(
                f"{self._config.url}: HTTP {status} for model {self._config.model} ({detail}); "
                f"check url, model and the key in {key}"
            )
        return Answer(None, "http_5xx" if status >= 500 else f"http_{status}", detail)

    def _body(self, question: Question) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        if question.frames is not None:
            content += [
                {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{_jpeg(one)}"}}
                for one in question.frames
            ]
        if question.samples is not None:
            sound = {"data": _wav(question.samples, question.sample_rate), "format": "wav"}
            content.append({"type": "input_audio", "input_audio": sound})
        content.append({"type": "text", "text": question.prompt})
        return {
            "model": self._config.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": self._config.max_tokens,
            "temperature": self._config.temperature,
        }


def _bounded(blocks: Iterator[bytes], deadline: float) -> Iterator[bytes]:
    """A server that sends for ever is cut short."""
    size = 0
    for block in blocks:
        yield block
        size += len(block)
        if size > MAX_BODY:
            return
        if time.monotonic() > deadline:
            raise TimeoutError("its answer did not end in time")


def _read(data: bytes, own: str, said: list[str]) -> Answer:
    if len(data) > MAX_BODY:
        return Answer(None, "too_long", f"over {MAX_BODY} bytes")
    try:
        plain = json.loads(data)
        choice = plain["choices"][0]
        text, refusal = choice["message"].get("content"), choice["message"].get("refusal")
        finish = choice.get("finish_reason")
        said = [*said, str(plain.get("id", ""))]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        return Answer(None, "unreadable", f"{type(error).__name__}: {error}")
    other = next((one for one in said if MARK in one and own not in one), None)
    if other is not None:
        return Answer(None, "mismatched", f"asked as {own}, answered as {other}")
    if refusal or finish == "content_filter":
        return Answer(None, "refused", str(refusal or finish)[:300])
    if finish == "length":
        return Answer(None, "cut_off", "max_tokens were not enough")
    if text is not None and not isinstance(text, str):
        return Answer(None, "unreadable", f"content is a {type(text).__name__}")
    return Answer(text or "")


def _retry_after(value: str | None) -> float | None:
    """Seconds, from seconds or a date; None where it says neither."""
    if value is None:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(ValueError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return None


def _jpeg(frame: UInt8[ndarray, "h w 3"]) -> str:
    import cv2

    _, data = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    return base64.b64encode(data.tobytes()).decode()


def _wav(samples: Float32[ndarray, " m"], rate: int) -> str:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((samples.clip(-1, 1) * 32767).round().astype("<i2").tobytes())
    return base64.b64encode(file.getvalue()).decode()
