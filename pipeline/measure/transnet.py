"""TransNetV2 (arXiv 2008.04838) from an ONNX file, in place of the built-in detector.

The file takes (1, 100, 27, 48, 3) RGB in 0..255 and answers first the logit, for each frame, that
it is in a transition. Windows overlap by half and only their middle counts, as its authors do it.
"""

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from avdata.errors import UsageError
from avdata.pipeline.measure.dissolves import Transition
from avdata.pipeline.media.spool import Spool
from avdata.pipeline.media.stream import Picture

if TYPE_CHECKING:
    import onnxruntime

WINDOW, EDGE = 100, 25
HEIGHT, WIDTH = 27, 48


def require_network(file: str | None) -> None:
    """UsageError where this machine lacks the file or what runs it; None wants neither."""
    if file is None:
        return
    if not Path(file).is_file():
        raise UsageError(f"shots.transnet must be an ONNX file, {file} is none")
    if importlib.util.find_spec("onnxruntime") is None:
        raise UsageError("shots.transnet needs onnxruntime: pip install 'avdata[shots]'")


class TransNet:
    """Collects small frames, then runs the network over them."""

    def __init__(self, path: Path) -> None:
        self._session = _session(path)
        self._frames = Spool(np.uint8, (HEIGHT, WIDTH, 3))

    def add(self, picture: Picture) -> None:
        """The next frame."""
        self._frames.append(picture.rgb(HEIGHT, WIDTH)[None])

    def transitions(self) -> list[Transition]:
        """As the authors read the network: the first frame of a run still belongs to the shot."""
        inside = self._logits() > 0  # A probability over one half.
        edges = np.flatnonzero(np.diff(np.r_[False, inside, False])).reshape(-1, 2).tolist()
        last = len(self._frames) - 1
        return [Transition(begin + 1, end) for begin, end in edges if end <= last]

    def _logits(self) -> Float[ndarray, " n"]:
        count, kept = len(self._frames), WINDOW - 2 * EDGE
        name = self._session.get_inputs()[0].name
        logits = []
        for begin in range(0, count, kept):
            window = self._window(begin - EDGE)[None].astype(np.float32)
            answer = np.asarray(self._session.run(None, {name: window})[0]).reshape(-1)
            logits.append(answer[EDGE : EDGE + kept])
        return np.concatenate(logits)[:count]

    def _window(self, begin: int) -> UInt8[ndarray, "n h w 3"]:
        """Beyond its ends the source stands still."""
        frames = self._frames[max(begin, 0) : begin + WINDOW]
        before = max(-begin, 0)
        after = WINDOW - before - len(frames)
        return np.pad(frames, ((before, after), (0, 0), (0, 0), (0, 0)), mode="edge")


@lru_cache(maxsize=1)
def _session(path: Path) -> "onnxruntime.InferenceSession":
    require_network(str(path))
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # Sources are measured in parallel.
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
