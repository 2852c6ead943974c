"""Which shape each clip is encoded in: its bucket, by the shape of its picture and its length."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from avdata.encoders.spec import ClipShape
from avdata.errors import UsageError
from avdata.pipeline.record import Clip

Size = tuple[int, int]
"""(height, width)"""
SHORT_S = 1e-3
"""By which a clip may be shorter than its frames: rounding of a container's clock."""


@dataclass(frozen=True, slots=True)
class Preset:
    """Sizes and, where it says so, lengths."""

    sizes: tuple[Size, ...]
    num_frames: tuple[int, ...] = ()
    """Empty: as many as the clips of the manifest have."""
    fps: int | None = None
    """None: that of the manifest."""


WIDE_480P, WIDE_720P = (480, 832), (704, 1280)
PRESETS = {
    # arXiv 2512.02457: ALT-Merge 2 s, VGGSound 5 s.
    "paper": Preset(((192, 320),)),
    "paper-2s": Preset(((192, 320),), (33,), 16),
    "paper-5s": Preset(((192, 320),), (81,), 16),
    # The areas of Wan2.1 and Wan2.2; multiples of 32, as the model's patches need.
    "480p": Preset((WIDE_480P, WIDE_480P[::-1], (544, 704), (704, 544), (640, 640))),
    "720p": Preset((WIDE_720P, WIDE_720P[::-1], (832, 1088), (1088, 832), (960, 960))),
}


@dataclass(frozen=True, slots=True)
class Buckets:
    """The shapes that clips may have. A clip takes the size whose aspect ratio is nearest to its
    own, the first of them where two are, and the most frames that its length has room for.
    """

    sizes: tuple[Size, ...]
    num_frames: tuple[int, ...]
    fps: int
    sample_rate: int = 44_100

    def shape(self, clip: Clip) -> ClipShape:
        """Of one clip; UsageError when it is shorter than all of them."""
        frames = [n for n in self.num_frames if self._fits(clip, n)]
        if not frames:
            least = (min(self.num_frames) - 1) / self.fps
            raise UsageError(
                f"clip {clip.clip_id} of {clip.source.uri} has {clip.end_s - clip.start_s:.3f} s, "
                f"{min(self.num_frames)} frames at {self.fps} fps need {least:.3f} s; "
                "ask for fewer, or run `avdata ingest` with more num_frames"
            )
        height, width = nearest(self.sizes, clip.media.height, clip.media.width)
        return ClipShape(max(frames), self.fps, height, width, self.sample_rate)

    def _fits(self, clip: Clip, num_frames: int) -> bool:
        """The last frame lies inside and so does all of the sound."""
        return (num_frames - 1) / self.fps <= clip.end_s - clip.start_s + SHORT_S


def nearest(sizes: Sequence[Size], height: int, width: int) -> Size:
    """The size whose aspect ratio differs by the smallest factor."""
    aspect = math.log(width / height)
    return min(sizes, key=lambda size: round(abs(math.log(size[1] / size[0]) - aspect), 9))


def bucket_name(shape: ClipShape) -> str:
    """FRAMESxHEIGHTxWIDTH, the folder of its shards."""
    return f"{shape.num_frames}x{shape.height}x{shape.width}"
