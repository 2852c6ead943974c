"""Where somebody speaks, by Silero VAD (MIT, https://github.com/snakers4/silero-vad) if installed.

The weights are inside its wheel. Its TorchScript file is loaded directly, since importing the
package sets the number of threads of the whole process. Two-second stretches go through it side by
side, each from a fresh state: many times faster than one chunk after another.
"""

import functools
import importlib.util
import math
import socket
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from avdata import storage
from avdata.errors import UsageError
from avdata.pipeline.measure.resampled import Resampled
from avdata.pipeline.media.sound import Samples

if TYPE_CHECKING:
    import torch

RATE = 16_000
CHUNK = 512
"""Samples, 32 ms: what the model takes."""
CHUNKS_TOGETHER = 63
"""2 s."""
STRETCHES_AT_ONCE = 32
SPEECH_PROBABILITY = 0.5


def speech_digest() -> str | None:
    """Of the model that is installed here; None without `silero-vad`."""
    file = _file()
    return None if file is None else _digest(file)


def require_speech(wanted: str) -> None:
    """UsageError where this machine has not the model of this digest; `none` wants none."""
    if wanted in ("none", speech_digest()):
        return
    has = "no silero-vad" if _file() is None else "another version of silero-vad"
    raise UsageError(
        f"speech = {wanted}: {socket.gethostname()} has {has}; install the same on all machines "
        "(pip install 'avdata[speech]'), or set speech=none"
    )


def speech_track(sound: Samples, rate: int, wanted: str) -> Float32[ndarray, " n"] | None:
    """Probability of speech in each 32 ms from the first sample, by the model of the digest
    `wanted`; None where that is `none`.
    """
    if wanted == "none":
        return None
    require_speech(wanted)
    model = _model()
    common = math.gcd(RATE, rate)
    slow = Resampled(sound, RATE // common, rate // common)
    count = -(-len(slow) // CHUNK)
    if count == 0:
        return np.zeros(0, np.float32)
    found, samples = [], CHUNKS_TOGETHER * CHUNK
    for first in range(0, len(slow), STRETCHES_AT_ONCE * samples):
        piece = slow[first : first + STRETCHES_AT_ONCE * samples]
        padded = np.pad(piece, (0, -len(piece) % samples))
        found.append(_probabilities(model, padded.reshape(-1, CHUNKS_TOGETHER, CHUNK)))
    return np.concatenate(found).ravel()[:count]


def speech_share(
    track: Float32[ndarray, " n"] | None, start_s: float, end_s: float
) -> float | None:
    """Share of a span in which somebody speaks."""
    if track is None:
        return None
    inside = track[round(start_s * RATE / CHUNK) : round(end_s * RATE / CHUNK)]
    return float((inside > SPEECH_PROBABILITY).mean()) if len(inside) else None


def _probabilities(
    model: "torch.jit.ScriptModule",
    stretches: Float32[ndarray, "s chunks samples"],
) -> Float32[ndarray, "s chunks"]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # So small a model spends its time waiting for a second thread.
    # The compiler's second look at the model would cost more than it ever gains.
    with torch.inference_mode(), torch.jit.optimized_execution(False):
        model.reset_states()
        steps = torch.from_numpy(np.ascontiguousarray(stretches.transpose(1, 0, 2)))
        heard = torch.cat([model(step, RATE) for step in steps], dim=1)
    torch.set_num_threads(threads)
    return np.asarray(heard.numpy(), np.float32)


def _file() -> Path | None:
    found = importlib.util.find_spec("silero_vad")
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / "data" / "silero_vad.jit"


@functools.cache
def _digest(file: Path) -> str:
    return storage.digest_file(file)


@functools.cache
def _model() -> "torch.jit.ScriptModule":
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch would rather have torch.export.
        model: torch.jit.ScriptModule = torch.jit.load(str(_file()))
        return model.eval()
