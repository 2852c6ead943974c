"""Clips decoded in child processes: what a hostile file does to FFmpeg costs that one clip."""

import contextlib
import queue
from dataclasses import dataclass
from pathlib import Path

from avdata.encoders.spec import ClipShape
from avdata.pipeline.media.child import Child, require_usable
from avdata.pipeline.media.clip import ClipMedia, read_clip
from avdata.pipeline.media.geometry import Fit

CLIPS_PER_CHILD = 1000


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What one clip may cost."""

    deadline_s: float = 300.0
    memory_gib: float = 16.0
    """Address space of the child."""

    def __post_init__(self) -> None:
        require_usable(self)


class Decoders:
    """As many children as threads read at once; close it when done."""

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        self._idle = queue.LifoQueue[Child[..., ClipMedia]]()

    def read(self, path: Path, start_s: float, shape: ClipShape, fit: Fit) -> ClipMedia:
        """As `read_clip`; crash, hang and exhaustion become MediaError."""
        try:
            child = self._idle.get_nowait()
        except queue.Empty:
            child = Child(read_clip, "decoding", self._limits, CLIPS_PER_CHILD)
        if child.lost:  # Between two clips, so neither is to blame.
            child.close()
        try:
            return child.call(str(path), path, start_s, shape, fit=fit)
        finally:
            self._idle.put(child)

    def close(self) -> None:
        """Ends the children that are idle."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()
