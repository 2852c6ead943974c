"""What an encoder is, and all arithmetic between frames, samples, seconds and latents.

Letters: b batch, n frames, h w pixels, c channels, t latent frames, m samples, l audio latents.
A clip of n = 4k+1 frames at rate fps spans (n-1)/fps seconds from its first to its last frame;
its sound is exactly that long and sample 0 sounds at frame 0 (arXiv 2512.02457: 33 frames at
16 fps go with 88,200 samples at 44.1 kHz).
"""

from dataclasses import dataclass
from typing import Any

from avdata.errors import SpecMismatch


@dataclass(frozen=True, slots=True)
class ClipShape:
    """Pixels and samples of one clip: the media side of a bucket."""

    num_frames: int = 33
    fps: int = 16
    height: int = 192
    width: int = 320
    sample_rate: int = 44_100

    def __post_init__(self) -> None:
        for name in ("num_frames", "fps", "height", "width", "sample_rate"):
            if getattr(self, name) < 1:
                raise ValueError(f"clip {name} must be positive, not {getattr(self, name)}")

    @property
    def seconds(self) -> float:
        """Time from the first frame to the last, which is the length of the sound."""
        return (self.num_frames - 1) / self.fps

    @property
    def shown_seconds(self) -> float:
        """Time for which frames are on screen: one frame period more than `seconds`."""
        return self.num_frames / self.fps

    @property
    def num_samples(self) -> int:
        """Samples per channel, rounded to the nearest."""
        return round((self.num_frames - 1) * self.sample_rate / self.fps)


@dataclass(frozen=True, slots=True)
class VideoSpec:
    """A causal video encoder: the first latent frame holds one frame, later ones `stride_time`."""

    name: str
    digest: str
    """Digest of the weights or settings; equal digests give equal latents."""
    channels: int = 48
    stride_time: int = 4
    stride_height: int = 16
    stride_width: int = 16

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(c, t, h, w) of the latents; ValueError unless frames are 4k+1 and sizes divide."""
        for what, value, rest, stride in (
            ("frames - 1", num_frames - 1, num_frames - 1, self.stride_time),
            ("height", height, height, self.stride_height),
            ("width", width, width, self.stride_width),
        ):
            if value < 0 or rest % stride:
                raise ValueError(f"{self.name}: {what} = {value} is not a multiple of {stride}")
        return (
            self.channels,
            (num_frames - 1) // self.stride_time + 1,
            height // self.stride_height,
            width // self.stride_width,
        )

    def num_frames(self, latent_frames: int) -> int:
        """Frames that decoding `latent_frames` gives."""
        return (latent_frames - 1) * self.stride_time + 1

    def latent_seconds(self, fps: float) -> float:
        """Time between neighbouring latent frames (the paper's delta t_v)."""
        return self.stride_time / fps


@dataclass(frozen=True, slots=True)
class AudioSpec:
    """An audio encoder of fixed hop."""

    name: str
    digest: str
    channels: int = 64
    hop: int = 2048
    sample_rate: int = 44_100
    audio_channels: int = 2

    def latent_length(self, num_samples: int) -> int:
        """Latents for so many samples: whole hops only (88,200 samples give 43)."""
        return num_samples // self.hop

    def num_samples(self, latent_length: int) -> int:
        """Samples that decoding `latent_length` gives."""
        return latent_length * self.hop

    def latent_seconds(self) -> float:
        """Time between neighbouring latents (the paper's delta t_a)."""
        return self.hop / self.sample_rate


@dataclass(frozen=True, slots=True)
class TextSpec:
    """A text encoder: at most `max_tokens` embeddings of `width` numbers a caption."""

    name: str
    digest: str
    width: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Specs:
    """The four encoders whose outputs make one training sample."""

    video: VideoSpec
    audio: AudioSpec
    video_text: TextSpec
    audio_text: TextSpec

    @classmethod
    def from_plain(cls, plain: dict[str, dict[str, Any]]) -> "Specs":
        """From what `dataclasses.asdict` gave, after JSON."""
        return cls(
            video=VideoSpec(**plain["video"]),
            audio=AudioSpec(**plain["audio"]),
            video_text=TextSpec(**plain["video_text"]),
            audio_text=TextSpec(**plain["audio_text"]),
        )

    def require(self, found: "Specs", where: str, way_out: str | None = None) -> None:
        """SpecMismatch naming the first field in which `found` differs from this."""
        for role in ("video", "audio", "video_text", "audio_text"):
            wanted, got = getattr(self, role), getattr(found, role)
            if wanted == got:
                continue
            for field in type(wanted).__dataclass_fields__:
                if getattr(wanted, field) != getattr(got, field):
                    again = f"encode the clips again with {wanted.name}, "
                    again += f"or use what was made with {got.name}"
                    raise SpecMismatch(
                        f"{where}: {role} encoder {field} is {getattr(got, field)!r}, expected "
                        f"{getattr(wanted, field)!r}; {way_out or again}"
                    )


def tau(video: VideoSpec, audio: AudioSpec, fps: float) -> float:
    """AVSyncRoPE's ratio delta t_v / delta t_a (arXiv 2512.02457): 5.3833 at 16 fps."""
    return video.latent_seconds(fps) / audio.latent_seconds()
