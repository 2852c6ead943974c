"""An OpenAI-compatible endpoint for tests, a process of its own: `python caption_server.py LOG`.

It prints its port. Its answer names what it was shown, by the picture's mean colour or the sound's
loudest frequency, so that a caption tells whose it is. The first word of the model's name says how
it misbehaves. LOG gets a line for every request: its id, and what was in it.
"""

import base64
import contextlib
import io
import json
import sys
import threading
import time
import wave
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np

LOG = Path(sys.argv[1])
LOCK = threading.Lock()
SEEN: dict[str, int] = {}
SINCE: dict[str, float] = {}


def described(content: list[dict[str, Any]]) -> tuple[str, str]:
    images = [one["image_url"]["url"] for one in content if one["type"] == "image_url"]
    sounds = [one["input_audio"]["data"] for one in content if one["type"] == "input_audio"]
    assert sum(one["type"] == "text" for one in content) == 1
    seen = _seen(images) if images else ""
    heard = _heard(sounds) if sounds else ""
    if images and sounds:
        return "joint", f"{seen} with {heard}"
    return ("video", seen) if images else ("audio", heard)


def _seen(images: list[str]) -> str:
    data = np.frombuffer(base64.b64decode(images[0].partition(",")[2]), np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert picture is not None
    blue, green, red = picture.mean(axis=(0, 1))
    return f"a picture of {red / 10:.0f} {green / 10:.0f} {blue / 10:.0f}"


def _heard(sounds: list[str]) -> str:
    with wave.open(io.BytesIO(base64.b64decode(sounds[0]))) as sound:
        samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2").astype(float)
        peak = np.abs(np.fft.rfft(samples)).argmax() * sound.getframerate() / len(samples)
    return f"a tone of {peak / 10:.0f}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.own = own = self.headers["X-Request-Id"]
        role, self.text = described(body["messages"][0]["content"])
        assert own.endswith(f"-{role}"), "whoever is asked gets what the question is about"
        with LOCK:
            self.number = SEEN[own] = SEEN.get(own, 0) + 1
            self.count = sum(SEEN.values())
            with LOG.open("a") as log:
                log.write(json.dumps({"id": own, "role": role, "model": body["model"]}) + "\n")
        mood = body["model"].split("-")[0]
        getattr(self, f"be_{mood}")()

    def answer(self, own: str, text: str | None, finish: str = "stop") -> None:
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
        self.send(200, {"id": f"chatcmpl-{own}", "choices": [choice]})

    def send(self, status: int, plain: object, **headers: str) -> None:
        data = json.dumps(plain).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def be_good(self) -> None:
        self.answer(self.own, self.text)

    def be_wild(self) -> None:
        """Every request fails once or twice in its own way, out of order, and then is answered."""
        time.sleep(0.02 * (self.count * 7 % 5))
        kind = (sum(map(ord, self.own)) + self.number) % 6
        if self.number > 2 or kind == 0:
            self.answer(self.own, f'Caption: "{self.text}"')
        elif kind == 1:
            self.send(429, {"error": "slow down"}, Retry_After="0.05")
        elif kind == 2:
            self.send(500, {"error": "out of memory"})
        elif kind == 3:  # Drops the connection in the middle of an answer.
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"choices": [')
            self.close_connection = True
        elif kind == 4:  # Somebody else's answer.
            self.answer("avdata-00000000-video", "an elephant")
        else:  # The same answer twice on one connection.
            self.answer(self.own, self.text)
            self.answer(self.own, "an elephant")

    def be_bad(self) -> None:
        """Each in a way that does not pass."""
        ways: list[tuple[str | None, str]] = [
            ("  \n ", "stop"),
            (None, "stop"),
            ("I'm sorry, but I can't help with that.", "stop"),
            ("a ball " * 5000, "stop"),
            ("a ball " * 500_000, "stop"),
            ("a ball that", "length"),
            ("", "content_filter"),
        ]
        self.answer(self.own, *ways[sum(map(ord, self.own)) % len(ways)])

    def be_shy(self) -> None:
        """Says nothing of pictures and sounds together."""
        self.answer(self.own, "" if self.own.endswith("-joint") else self.text)

    def be_broken(self) -> None:
        self.send(500, {"error": "no GPU"})

    def be_half(self) -> None:
        """Answers two, then fails until it is mended."""
        if self.count <= 2:
            self.answer(self.own, self.text)
        else:
            self.unless_mended(503, {"error": "gone"})

    def be_crowded(self) -> None:
        """Answers who comes a while after the first, and does not say how long that is."""
        now = time.monotonic()
        if now - SINCE.setdefault(self.be_crowded.__name__, now) < 0.2:
            self.send(429, {"error": "slow down"})
        else:
            self.answer(self.own, self.text)

    def be_picky(self) -> None:
        """Takes no request until it is mended, as the next two."""
        self.unless_mended(400, {"error": "unknown field: max_tokens"})

    def be_moved(self) -> None:
        self.unless_mended(308, {}, Location="https://127.0.0.1/v1")

    def be_talking(self) -> None:
        self.unless_mended(200, "welcome")

    def unless_mended(self, status: int, plain: object, **headers: str) -> None:
        if LOG.with_name("mended").exists():
            self.answer(self.own, self.text)
        else:
            self.send(status, plain, **headers)

    def be_locked(self) -> None:
        self.send(401, {"error": "no such key"})

    def be_closing(self) -> None:
        """Wants the first to come again a second later, and the others never."""
        if self.count == 1:
            self.send(503, {"error": "busy"}, Retry_After="1")
        else:
            self.be_locked()

    def be_dripping(self) -> None:
        """A good answer, if one waits for it."""
        choice = {"message": {"content": self.text}, "finish_reason": "stop"}
        data = json.dumps({"choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data) + 60))
        self.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(60):
                self.wfile.write(b" ")
                time.sleep(0.05)
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Standard error is for errors."""


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
sys.stdout.write(f"{server.server_port}\n")
sys.stdout.flush()
server.serve_forever()
