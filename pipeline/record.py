"""The clip record: one row of the manifest, a nested struct a family, no free-form dictionaries.

Times are seconds from the start of the clip unless a name says otherwise. `None` means that a
thing could not be measured, never zero. `arrow_schema` derives the Parquet schema from these
classes, so this file is the schema; raise `VERSION` when a field changes its meaning.
"""

from dataclasses import dataclass, field

VERSION = 1


@dataclass(frozen=True, slots=True)
class Source:
    """The raw media file a clip comes from."""

    uri: str
    uris: list[str]
    """Every name under which the same bytes were found, `uri` the first of them."""
    digest: str
    """xxh3-128 of the file's bytes."""
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Media:
    """Facts of the source's container and streams."""

    container: str
    duration_s: float
    """From the first decoded frame to the end of the last, not the container's word."""
    duration_error_ms: float | None
    """What the container declares minus what was decoded; None when it declares nothing."""
    video_codec: str
    width: int
    """After rotation."""
    height: int
    rotation: int
    """Clockwise degrees that the file asks a player for."""
    fps: float
    """Decoded frames per second of decoded duration."""
    vfr: bool
    audio_codec: str | None
    audio_rate: int | None
    audio_channels: int | None
    av_lag_ms: float | None
    """Start of the sound minus start of the picture; negative when sound starts first."""
    flags: list[str]
    """What is wrong with the file though it decodes: `truncated`, `decode_errors`, ..."""


@dataclass(frozen=True, slots=True)
class Technical:
    """Exposure and detail of the picture, luma in 0..1."""

    luma_mean: float
    luma_std: float
    """Mean over frames of the spread within a frame: near zero for an empty picture."""
    black_share: float
    """Share of frames that are black."""
    frozen_share: float
    """Share of frames that repeat the one before."""


@dataclass(frozen=True, slots=True)
class Motion:
    """Optical flow with the camera's part removed, in frame heights per second."""

    mean: float
    peak: float
    """95th percentile over time of the largest patch."""
    moving_share: float
    """Mean share of the picture that moves by itself."""
    camera_speed: float


@dataclass(frozen=True, slots=True)
class Audio:
    """Loudness and events of the sound; the row holds None where there is no sound."""

    rms_dbfs: float
    """-120 for digital silence."""
    peak_dbfs: float
    silence_share: float
    """Share of 50 ms windows below -60 dBFS."""
    onsets_s: list[float]


@dataclass(frozen=True, slots=True)
class ContactEvent:
    """One impact, seen and heard."""

    t: float
    t_audio: float
    t_video: float
    lag_ms: float
    """t_audio - t_video: positive when the sound comes late."""
    strength: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Labels:
    """Claims derived from the measurements."""

    motion: str
    """static, small or large."""
    contact: bool
    silent: bool
    """True when there is no sound at all, too."""


@dataclass(frozen=True, slots=True)
class Captions:
    """Two captions a clip: what is seen, what is heard (arXiv 2512.02457)."""

    video: str
    audio: str
    model: str
    prompt_digest: str


@dataclass(frozen=True, slots=True)
class Clip:
    """A span of one source inside one shot."""

    clip_id: str
    source: Source
    shot: int
    start_s: float
    """On the source's own clock, whose zero is its first frame."""
    end_s: float
    media: Media
    technical: Technical
    motion: Motion
    audio: Audio | None
    events: list[ContactEvent]
    labels: Labels
    captions: Captions | None = None
    status: str = "undecided"
    """keep or drop once a policy has been applied."""
    reasons: list[str] = field(default_factory=list)
    """Names of the policy rules that drop it, in the policy's order."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A source that gave no clips, and why."""

    uri: str
    size_bytes: int
    stage: str
    reason: str
    detail: str
    attempts: int
