"""Clip records for tests: one plausible clip, changed where a test says so."""

from avdata import storage
from avdata.pipeline.record import (
    Audio,
    Captions,
    Clip,
    Labels,
    Media,
    Motion,
    Source,
    Technical,
)

SOUND = Audio(rms_dbfs=-20.0, peak_dbfs=-3.0, silence_share=0.0, onsets_s=[0.5])
SETTINGS = {"num_frames": 33, "fps": 16}
CAPTIONS = Captions(video="a ball", audio="a hit", model="test", prompt_digest="0")


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
        technical=Technical(luma_mean=luma_mean, luma_std=0.2, black_share=0.0, frozen_share=0.0),
        motion=Motion(mean=0.05, peak=0.5, moving_share=0.1, camera_speed=0.0),
        audio=audio,
        events=[],
        labels=Labels(motion=motion, contact=contact, silent=audio is None),
        captions=captions,
    )
