"""Where somebody speaks, by Silero VAD (MIT, https://github.com/snakers4/silero-vad) if installed.

The weights are inside its wheel. Its TorchScript file is loaded directly, since importing the
package sets the number of threads of the whole process. Two-second stretches go through it side by
side, each from a fresh state: many times faster than one chunk after another.
"""

import functools
import importlib.util
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

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


def speech_track(sound: Samples, rate: int) -> Float32[ndarray, " n"] | None:
    """Probability of speech in each 32 ms from the first sample; None without `silero-vad`."""
    model = _model()
    if model is None:
        return None
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


@functools.cache
def _model() -> "torch.jit.ScriptModule | None":
    found = importlib.util.find_spec("silero_vad")
    if found is None or found.origin is None:
        return None
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch would rather have torch.export.
        file = Path(found.origin).parent / "data" / "silero_vad.jit"
        model: torch.jit.ScriptModule = torch.jit.load(str(file))
        return model.eval()
