"""Clip records for tests: one plausible clip, changed where a test says so."""

from avdata import storage
from avdata.pipeline.arrow import to_table
from avdata.pipeline.manifest import Manifest
from avdata.pipeline.parts import Parts
from avdata.pipeline.record import (
    Audio,
    Captions,
    Clip,
    ContactEvent,
    Fingerprint,
    Labels,
    Media,
    Motion,
    Quarantined,
    Semantics,
    Source,
    Technical,
)
from avdata.pipeline.sources.table import SourceRow

SOUND = Audio(
    rms_dbfs=-20.0,
    loudest_dbfs=-12.0,
    peak_dbfs=-3.0,
    silence_share=0.0,
    onsets_s=[0.5],
    lufs=-21.0,
    clipped_share=0.0,
    dc_offset=0.0,
    bandwidth_hz=8000.0,
    snr_db=20.0,
    channel_correlation=0.9,
    speech_share=0.0,
    tonal_share=0.1,
)
EVENT = ContactEvent(
    t=0.5, t_audio=0.5, t_video=0.49, lag_ms=10.0, strength=1.0, confidence=0.9, x=0.5, y=0.5
)
SETTINGS = {"num_frames": 33, "fps": 16}
CAPTIONS = Captions(video="a ball", audio="a hit", model="test", prompt_digest="0")
MEANING = Semantics(
    image_text=0.3,
    audio_text=0.4,
    audio_visual=0.5,
    picture_tags=["dog barking"],
    sound_tags=["dog barking"],
    picture_group=None,
    sound_group=None,
    coupling="loose",
    music_bed=False,
    voice_over=False,
)


def a_clip(
    source: str = "a.mp4",
    start_s: float = 0.0,
    luma_mean: float = 0.5,
    motion: str = "small",
    contact: bool = False,
    flags: list[str] | None = None,
    audio: Audio | None = SOUND,
    captions: Captions | None = CAPTIONS,
) -> Clip:
    digest = storage.digest_json(source)
    return Clip(
        clip_id=storage.digest_json([digest, start_s]),
        source=Source(uri=source, uris=[source], digest=digest, size_bytes=1),
        shot=0,
        start_s=start_s,
        end_s=start_s + 2.0625,
        jumped_s=0.0,
        media=Media(
            container="mov",
            duration_s=10.0,
            duration_error_ms=0.0,
            video_codec="h264",
            width=320,
            height=180,
            rotation=0,
            fps=24.0,
            vfr=False,
            audio_codec="aac",
            audio_rate=44_100,
            audio_channels=2,
            av_lag_ms=0.0,
            flags=flags or [],
        ),
        technical=Technical(
            luma_mean=luma_mean,
            luma_std=0.2,
            black_share=0.0,
            frozen_share=0.0,
            sharpness=0.1,
            letterbox_share=0.0,
            border_share=0.0,
            bits_per_pixel=0.1,
        ),
        motion=Motion(mean=0.05, peak=0.5, moving_share=0.1, camera_speed=0.0),
        audio=audio,
        sync=None,
        events=[],
        labels=Labels(
            motion=motion, contact=contact, silent=audio is None, speech=False, music=False
        ),
        fingerprint=Fingerprint(picture=[], sound=[]),
        captions=captions,
    )


def write_parts(manifest: Manifest, clips: list[Clip], failed: list[Quarantined]) -> None:
    """As if each name were a content of its own."""
    parts = Parts(manifest.root, "settings")
    for name in {clip.source.uri for clip in clips}:
        mine = [clip for clip in clips if clip.source.uri == name]
        parts.write_clips(storage.digest_json(name), mine)
    for one in failed:
        parts.write_failure(storage.digest_json(one.uri), one)


def assemble(manifest: Manifest, names: list[str], contents: list[str] | None = None) -> None:
    """Puts these names in force; `contents` are the names under which their bytes were measured."""
    pairs = zip(names, contents or names, strict=True)
    rows = [SourceRow(name, 1, "v", None, storage.digest_json(content)) for name, content in pairs]
    manifest.assemble(to_table(SourceRow, rows), SETTINGS, "settings")
