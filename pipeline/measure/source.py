"""Everything about one source from one decode: its clips, measured and labelled.

The stream is read once. Per frame only small numbers are kept, never the picture, and of the sound
two channels: some 0.5 MB a second. At the end shots are cut into clips and each clip gathers the
numbers of its own frames.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from avdata import storage
from avdata.errors import MediaError
from avdata.pipeline.measure.audio import Heard, listened
from avdata.pipeline.measure.events import heard_and_seen
from avdata.pipeline.measure.frame_motion import still
from avdata.pipeline.measure.labels import labels
from avdata.pipeline.measure.looks import Looker
from avdata.pipeline.measure.motion import FlowMeter, motion
from avdata.pipeline.measure.shots import ShotConfig, ShotFinder, shots, with_jumps
from avdata.pipeline.measure.speech import require_speech, speech_digest
from avdata.pipeline.measure.technical import (
    FrameExposure,
    bits_per_pixel,
    frame_exposure,
    frozen_share,
    technical,
)
from avdata.pipeline.measure.transnet import require_network
from avdata.pipeline.media.clock import SourceClock
from avdata.pipeline.media.limits import MediaLimits
from avdata.pipeline.media.stream import Picture, SmallPicture, SourceStream, opened
from avdata.pipeline.record import Clip, ContactEvent, Fingerprint, Media, Source, Sync
from avdata.pipeline.sources.files import reading

VERSION = 10
"""Raise when a measurement changes; every part made before is then made again."""
AT_ONCE = 32
"""Frames."""
DAMAGE = (
    "truncated",
    "decode_errors",
    "timestamps_out_of_order",
    "timestamps_jump",
    "audio_unreadable",
)
"""Flags that explain why a source is too short, the likeliest first."""


@dataclass(frozen=True, slots=True)
class IngestConfig:
    """How sources become clips."""

    num_frames: int = 33
    """Frames of a clip, 4k+1."""
    fps: int = 16
    max_clips_per_source: int | None = None
    max_failures_in_a_row: int = 100
    """Sources that could not be read, one after another: so many stop the job."""
    shots: ShotConfig = field(default_factory=ShotConfig)
    speech: str = "auto"
    """auto: measured where the machine of the command has silero-vad; `ingest` puts the digest of
    its model here, which all machines must have then, or none. none: not measured.
    """
    limits: MediaLimits = field(default_factory=MediaLimits)

    def __post_init__(self) -> None:
        if self.num_frames < 5 or self.num_frames % 4 != 1:
            raise ValueError(f"num_frames must be 4k+1 (17, 33, 81, ...), not {self.num_frames}")
        if self.fps < 1:
            raise ValueError(f"fps must be at least 1, not {self.fps}")
        if self.max_clips_per_source is not None and self.max_clips_per_source < 1:
            raise ValueError(
                f"max_clips_per_source must be positive, not {self.max_clips_per_source}"
            )
        if self.max_failures_in_a_row < 1:
            raise ValueError(
                f"max_failures_in_a_row must be positive, not {self.max_failures_in_a_row}"
            )

        if self.speech not in ("auto", "none") and not re.fullmatch("[0-9a-f]{32}", self.speech):
            raise ValueError(f"speech must be auto, none or a model's digest, not {self.speech}")

    def decided(self) -> "IngestConfig":
        """With what depends on this machine settled."""
        if self.speech != "auto":
            return self
        return replace(self, speech=speech_digest() or "none")

    def require_models(self) -> None:
        """UsageError where a model that is wanted is not on this machine."""
        require_network(self.shots.transnet)
        require_speech(self.decided().speech)

    @property
    def clip_seconds(self) -> float:
        """Time for which a clip is on screen."""
        return self.num_frames / self.fps

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same source would give other rows. Deadline and memory are left out:
        what they cost is tried again by the next run.
        """
        limits = [self.limits.max_seconds, self.limits.max_pixels]
        clips = [self.num_frames, self.fps, self.max_clips_per_source, self.shots.digest]
        return storage.digest_json([VERSION, clips, limits, self.decided().speech])


@dataclass(frozen=True, slots=True)
class _Tracks:
    """What is left of a source after its decode: short series, one entry a frame."""

    times: list[float]
    exposures: list[FrameExposure]
    meter: FlowMeter
    events: list[ContactEvent]
    sync: Sync | None
    shots: list[tuple[float, float]]
    heard: Heard | None
    looker: Looker
    media: Media
    clock: SourceClock


def measure_source(path: Path, uri: str, config: IngestConfig) -> list[Clip]:
    """All clips of one local file; MediaError when it gives none, or changes meanwhile."""
    with reading("read"):
        before = path.stat()
        digest = storage.digest_file(path)
    source = Source(uri=uri, uris=[uri], digest=digest, size_bytes=before.st_size)
    with opened(path, config.limits.decoder_threads) as container:
        tracks = _read(SourceStream(container, config.limits), config.decided())
    with reading("read"):
        after = path.stat()
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise MediaError("read", "changed", "its bytes changed while it was measured")
    spans = [
        (shot, start)
        for shot, (low, high) in enumerate(tracks.shots)
        for start in clip_starts(low, high, config, at_end=shot == len(tracks.shots) - 1)
    ][: config.max_clips_per_source]
    if not spans:
        raise _too_short(tracks, config)
    return [_clip(source, shot, start, tracks, config) for shot, start in spans]


def clip_starts(low: float, high: float, config: IngestConfig, *, at_end: bool) -> list[float]:
    """Starts of the clips that tile a shot from its first frame; what is left over is not used.

    At the source's end half a frame period may be missing: the last frame stays on screen. Before
    a cut nothing may, but the rounding of a container's clock.
    """
    slack = 0.5 / config.fps if at_end else 0.002
    count = int((high - low + slack) / config.clip_seconds)
    return [low + k * config.clip_seconds for k in range(count)]


def _read(stream: SourceStream, config: IngestConfig) -> _Tracks:
    exposures: list[FrameExposure] = []
    meter, finder = FlowMeter(), ShotFinder(stream.nominal_fps, config.shots)
    looker = Looker()
    before: SmallPicture | None = None

    def look(picture: Picture) -> None:
        finder.add(picture)
        looker.add(picture)

    for picture in _without_frames(stream.pictures(), look):
        exposures.append(frame_exposure(picture, before))
        meter.add(picture)
        before = picture
    heard, times = listened(stream, config.speech), stream.times.tolist()
    onsets_s, struck = ([], []) if heard is None else (heard.onsets_s, heard.struck)
    jumps_s = [jump.at_s for jump in stream.clock.jumps]
    transitions = with_jumps(finder.finish(), times, jumps_s)
    for cut in (one.end for one in transitions):
        meter.cut(times[cut])
    spans = shots(times, stream.end, transitions)
    events, sync = heard_and_seen(spans, onsets_s, struck, meter)
    return _Tracks(
        times=times,
        exposures=exposures,
        meter=meter,
        events=events,
        sync=sync,
        shots=spans,
        heard=heard,
        looker=looker,
        media=stream.media(),
        clock=stream.clock,
    )


def _without_frames(
    pictures: Iterable[Picture], look: Callable[[Picture], None]
) -> Iterator[SmallPicture]:
    """All of them after `look` has seen each. They come some at a time: between the decoding of two
    frames all that a measurement needs would be gone from the processor's caches.
    """
    waiting: list[SmallPicture] = []
    for picture in pictures:
        look(picture)
        waiting.append(picture.alone())
        if len(waiting) == AT_ONCE:
            yield from waiting
            waiting.clear()
    yield from waiting


def _clip(source: Source, shot: int, start: float, tracks: _Tracks, config: IngestConfig) -> Clip:
    end = start + config.clip_seconds
    inside = _inside(tracks.times, start, end)
    # What is on screen when the clip begins may have been so for long, and be all there is.
    shown = slice(max(bisect_right(tracks.times, start + 1e-6) - 1, 0), inside.stop)
    if inside.start == inside.stop:
        inside = shown
    edges = np.array([*tracks.times[shown], end])
    frozen = frozen_share(tracks.exposures[shown], edges, start)
    flows = tracks.meter.motions[_inside(tracks.meter.times, start, end)]
    moved = motion(flows or [still()])
    heard = None if tracks.heard is None else tracks.heard.audio(start, end)
    looks = tracks.looker.between(start, end)
    low, high = (bisect_left(tracks.events, at, key=lambda one: one.t) for at in (start, end))
    events = [_shifted(event, start) for event in tracks.events[low:high]]
    bits = bits_per_pixel(source, tracks.media)
    return Clip(
        clip_id=storage.digest_json(
            [source.digest, round(start, 6), config.num_frames, config.fps]
        ),
        source=source,
        shot=shot,
        start_s=start,
        end_s=end,
        jumped_s=tracks.clock.jumped_s(start),
        media=tracks.media,
        technical=technical(tracks.exposures[inside], frozen, looks, bits),
        motion=moved,
        audio=heard,
        sync=tracks.sync,
        events=events,
        labels=labels(moved, heard, events),
        fingerprint=Fingerprint(
            picture=[look.print for look in looks],
            sound=[] if tracks.heard is None else tracks.heard.prints(start, end),
        ),
    )


def _shifted(event: ContactEvent, start: float) -> ContactEvent:
    return replace(
        event, t=event.t - start, t_audio=event.t_audio - start, t_video=event.t_video - start
    )


def _inside(times: Sequence[float], start: float, end: float) -> slice:
    return slice(bisect_left(times, start - 1e-6), bisect_left(times, end - 1e-6))


def _too_short(tracks: _Tracks, config: IngestConfig) -> MediaError:
    flags = tracks.media.flags
    longest = max(high - low for low, high in tracks.shots)
    detail = (
        f"the longest of {len(tracks.shots)} shots has {longest:.2f} s, a clip needs "
        f"{config.clip_seconds:.2f} s; flags: {', '.join(flags) or 'none'}"
    )
    damage = [flag for flag in DAMAGE if flag in flags]
    return MediaError("cut", damage[0] if damage else "shorter_than_a_clip", detail)
