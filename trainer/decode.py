"""Latents that were sampled, as pixels and samples."""

import numpy as np

from avdata.encoders.encoder import AudioEncoder, VideoEncoder
from avdata.pipeline.media.clip import ClipMedia
from avdata.trainer.model.modality import Velocity
from avdata.trainer.run import Run


def as_media(
    run: Run, made: Velocity, video: VideoEncoder, audio: AudioEncoder | None
) -> ClipMedia:
    """The first of a batch: whole frames for as long as there is sound, or silence."""
    specs, clip = run.specs, run.clip
    frames = video.decode(made.video)[0].cpu().numpy()
    rate = specs.audio.sample_rate
    if made.audio is not None and audio is not None:
        samples = audio.decode(made.audio)[0].float().cpu().numpy()
    else:
        wanted = round(len(frames) / clip.fps * rate)
        silent = specs.audio.num_samples(specs.audio.latent_length(wanted))
        samples = np.zeros((2, silent), np.float32)
    frames = frames[: max(1, round(samples.shape[1] / rate * clip.fps))]
    return ClipMedia(frames, samples)
