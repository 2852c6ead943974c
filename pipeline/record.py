"""The clip record: one row of the manifest, a nested struct a family, no free-form dictionaries.

Times are seconds from the start of the clip unless a name says otherwise. `None` means that a
thing could not be measured, never zero. `arrow_schema` derives the Parquet schema from these
classes, so this file is the schema; raise `VERSION` when a field changes its meaning.
"""

from dataclasses import dataclass, field

VERSION = 3


@dataclass(frozen=True, slots=True)
class Source:
    """The raw media file a clip comes from."""

    uri: str
    uris: list[str]
    """Every name under which the same bytes were found, `uri` the first of them."""
    digest: str
    """xxh3-128 of the file's bytes."""
    size_bytes: int
    extra: str | None = None
    """What the list that named `uri` says of it besides, a JSON object."""


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
    """Clockwise degrees that the file asks a player for, after a flip of top and bottom where it is
    flagged `mirrored`.
    """
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
    pix_fmt: str | None = None
    """FFmpeg's name for how pictures are stored, such as yuv420p10le."""
    bit_depth: int | None = None
    """Of the finest component."""
    hdr: str | None = None
    """pq or hlg; such pictures are measured and encoded with their tones mapped to BT.709."""
    num_video_streams: int = 1
    """Cover pictures and thumbnails included; the one a player would choose is read."""
    num_audio_streams: int = 1


@dataclass(frozen=True, slots=True)
class Technical:
    """Exposure and detail of the picture, luma in 0..1."""

    luma_mean: float
    luma_std: float
    """Mean over frames of the spread within a frame: near zero for an empty picture."""
    black_share: float
    """Share of frames that are black."""
    frozen_share: float
    """Share of the time in which a frame repeats the one before, or is held beyond 0.25 s."""
    sharpness: float | None
    """Variance of the Laplacian over the variance of luma, at analysis size; None when flat."""
    letterbox_share: float | None
    """Share of the picture in black bars that last; None when it is black altogether."""
    border_share: float | None
    """Share of the picture in a lasting border of one colour on opposite sides, black or not."""
    bits_per_pixel: float | None
    """Of the whole file, sound included."""


@dataclass(frozen=True, slots=True)
class Motion:
    """Optical flow with the camera's part removed, in frame heights per second."""

    mean: float
    peak: float
    """95th percentile over time of the fastest cell's speed, weighed by the root of the share of
    the cell that moves."""
    moving_share: float
    """Mean share of the picture that moves by itself."""
    camera_speed: float


@dataclass(frozen=True, slots=True)
class Audio:
    """Loudness and events of the sound; the row holds None where there is no sound.

    Levels are of the louder channel; all but the peak and clipping without its mean. What hears
    (onsets, speech, tones, contacts) hears the mono mix.
    """

    rms_dbfs: float
    """-120 for digital silence."""
    loudest_dbfs: float
    """RMS of the loudest 50 ms."""
    peak_dbfs: float
    silence_share: float
    """Share of 50 ms windows below -60 dBFS."""
    onsets_s: list[float]
    lufs: float | None
    """Integrated loudness (ITU-R BS.1770-4) of all channels; None under 0.4 s or -70 LUFS."""
    clipped_share: float
    """Share of samples at 0.99 of full scale or beyond, in the channel with more of them."""
    dc_offset: float
    """Mean of the samples, full scale being 1, of the channel where it is further from zero."""
    bandwidth_hz: float | None
    """The frequency below which lies 99 % of the energy; None for silence."""
    snr_db: float | None
    """95th over 5th percentile of the power of 50 ms windows; None for silence."""
    channel_correlation: float | None
    """Of left and right, -1..1; None for one channel or where one is silent."""
    speech_share: float | None
    """Share of the time in which somebody speaks; None without `silero-vad`."""
    tonal_share: float | None
    """Share of the audible time that is made of held notes; None for silence."""


@dataclass(frozen=True, slots=True)
class ContactEvent:
    """One impact, seen and heard."""

    t: float
    t_audio: float
    t_video: float
    lag_ms: float
    """t_audio - t_video: positive when the sound comes late."""
    strength: float
    """Change of velocity, heights/s, of a thing that fills its cell; of a smaller one weighed by
    the root of the share that it fills."""
    confidence: float
    x: float
    """Where in the picture it is seen: middle of the cell whose velocity changes, 0 left to 1."""
    y: float
    """0 top to 1 bottom."""


@dataclass(frozen=True, slots=True)
class Sync:
    """How late the sound of the whole source is, by what is seen and heard."""

    lag_ms: float
    """Positive when the sound is late, within a second."""
    confidence: float
    """0..1: by how much this delay explains more than any other."""


@dataclass(frozen=True, slots=True)
class Labels:
    """Claims derived from the measurements."""

    motion: str
    """static, small or large."""
    contact: bool
    silent: bool
    """True when there is no sound at all, too."""
    speech: bool | None
    """Somebody speaks; None where that was not measured."""
    music: bool | None
    """Held notes for much of the time, a hint only; None for silence."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What identifies picture and sound though they be coded anew; 0 where there is nothing to."""

    picture: list[int]
    """64 bits for each multiple of 0.25 s of the source's clock within the clip."""
    sound: list[int]
    """32 bits for each 46 ms; empty without sound."""


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Clips of other sources with the same picture or sound, found over the whole manifest."""

    picture_group: str | None
    """The smallest clip_id of all that look the same; None for a picture of its own."""
    sound_group: str | None
    """The smallest clip_id of all that sound the same."""
    copy_group: str | None = None
    """The smallest clip_id of its copies in picture and sound alike."""
    best: bool | None = None
    """Of its `copy_group`, of which one is, or alone; None until a policy has been applied."""


@dataclass(frozen=True, slots=True)
class JointCaption:
    """What a model said of picture and sound together; it was asked for on top of the two."""

    text: str | None
    reason: str | None
    """Why there is no text, such as `refused`; no clip is dropped for want of it."""
    model: str
    prompt_digest: str


@dataclass(frozen=True, slots=True)
class Captions:
    """Two captions a clip: what is seen, what is heard (arXiv 2512.02457)."""

    video: str
    audio: str
    model: str
    prompt_digest: str
    """Of the two prompts; both fields are about `video` and `audio` alone."""
    joint: JointCaption | None = None
    """None where none was asked for, and for clips without sound."""


@dataclass(frozen=True, slots=True)
class Semantics:
    """What open-clip and CLAP make of a clip; None where there is no model, and where what there is
    cannot tell.
    """

    image_text: float | None
    """Cosine of the clip's mean frame with its video caption."""
    audio_text: float | None
    """Cosine of its sound with its audio caption."""
    audio_visual: float | None
    """0..1: how alike the classes of picture and sound are, see `pipeline.semantics.agreement`."""
    picture_tags: list[str] | None
    """The nearest classes of a list, the nearest first."""
    sound_tags: list[str] | None
    picture_group: str | None
    """The smallest clip_id of all whose pictures mean the same; None for one alone."""
    sound_group: str | None
    coupling: str | None
    """tight or loose: the paper's list that the nearest class of the sound is in."""
    music_bed: bool | None
    """A hint: music that nothing in the picture makes, see `pipeline.provenance`."""
    voice_over: bool | None
    """A hint: speech of somebody who is not in the picture."""
    picture_best: bool | None = None
    """Of its `picture_group`, of which one is; None for one alone, and until a policy has been
    applied.
    """
    sound_best: bool | None = None


@dataclass(frozen=True, slots=True)
class Clip:
    """A span of one source inside one shot."""

    clip_id: str
    source: Source
    shot: int
    start_s: float
    """On the source's own clock, whose zero is its first frame."""
    end_s: float
    jumped_s: float
    """By how much timestamps of the file have jumped before `start_s`, gaps that the source's own
    clock leaves out: 0 but where it is flagged `timestamps_jump`.
    """
    media: Media
    technical: Technical
    motion: Motion
    audio: Audio | None
    sync: Sync | None
    """None without sound, or with too little to compare."""
    events: list[ContactEvent]
    labels: Labels
    fingerprint: Fingerprint
    captions: Captions | None = None
    caption_failure: str | None = None
    """Why a captioner that was asked gave none, such as `video:refused`."""
    semantics: Semantics | None = None
    duplicates: Duplicates | None = None
    """None until all sources are assembled."""
    status: str = "undecided"
    """keep or drop once a policy has been applied."""
    reasons: list[str] = field(default_factory=list)
    """Names of the policy rules that drop it, in the policy's order."""

    @property
    def in_file_s(self) -> float:
        """Its start after the file's first frame by the file's own timestamps, as `read_clip` takes
        it.
        """
        return self.start_s + self.jumped_s


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A source that gave no clips, and why."""

    uri: str
    size_bytes: int | None
    """None where there is no file."""
    stage: str
    reason: str
    detail: str
    attempts: int
    memory_gib: float | None = None
    """The bound under which it was measured; None where it never was."""
