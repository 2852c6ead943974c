"""From a checkpoint and captions to mp4 files with sound."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from avdata import storage
from avdata.encoders.choice import Encoders, EncodersConfig
from avdata.pipeline.media.clip import ClipMedia
from avdata.pipeline.media.write import write_mp4
from avdata.trainer import checkpoint
from avdata.trainer.decode import as_media
from avdata.trainer.flow import SamplerConfig, sample
from avdata.trainer.group import joined
from avdata.trainer.loader import padded
from avdata.trainer.model.avfulldit import AVFullDiT
from avdata.trainer.model.modality import Conditioned, Velocity
from avdata.trainer.randomness import SAMPLE_AUDIO, SAMPLE_VIDEO, noise
from avdata.trainer.run import Run


@dataclass(frozen=True, slots=True)
class Prompt:
    """What to make: the two captions and the seed of the noise, not negative."""

    video: str
    audio: str
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Generator:
    """A run's model and the encoders it was trained with, but for that of sound in mode t2v."""

    run: Run
    model: AVFullDiT
    encoders: Encoders
    step: int

    def make(self, prompt: Prompt, config: SamplerConfig) -> ClipMedia:
        """One clip, whole frames for as long as there is sound; silent samples in mode t2v."""
        run, specs, clip = self.run, self.run.specs, self.run.clip
        shape = specs.video.latent_shape(clip.num_frames, clip.height, clip.width)
        length = specs.audio.latent_length(clip.num_samples)
        seen = self._conditioned(SAMPLE_VIDEO, shape, prompt)
        hears = run.config.mode == "t2av" or run.config.model.audio_caption
        heard = (
            self._conditioned(SAMPLE_AUDIO, (specs.audio.channels, length), prompt)
            if hears
            else None
        )
        made: Velocity = sample(self.model, seen, heard, config)
        return as_media(run, made, self.encoders.video, self.encoders.audio)

    def _conditioned(self, stream: int, shape: tuple[int, ...], prompt: Prompt) -> Conditioned:
        model = self.run.config.model
        encoder, caption, longest = (
            (self.encoders.video_text, prompt.video, model.max_video_text)
            if stream == SAMPLE_VIDEO
            else (self.encoders.audio_text, prompt.audio, model.max_audio_text)
        )
        text, mask = padded(encoder.encode([caption])[0], longest, captioned=True)
        latents = noise(stream, shape, prompt.seed)
        device = next(self.model.parameters()).device
        return Conditioned(*(one[None].to(device) for one in (latents, text, mask)))


def open_generator(
    run: Run, device: torch.device, encoders: EncodersConfig | None = None
) -> Generator:
    """The newest checkpoint with the encoders of its shards, or with `encoders` in their place.

    SpecMismatch, before anything is loaded, when they are not what the run was trained with.
    """
    chosen = _needed(run, encoders or run.encoders)
    model = AVFullDiT.build(run.config.model, run.specs, run.clip, run.config.mode, 0)
    with joined("cpu"):
        step = checkpoint.load_model(run, model)
    return Generator(run, model.to(device).eval(), chosen.open(device), step)


def _needed(run: Run, encoders: EncodersConfig) -> EncodersConfig:
    """Those that the run's mode uses: where there is no sound, its weights need not be there."""
    silent = run.config.mode == "t2v"
    if silent:
        encoders = replace(encoders, audio=EncodersConfig().audio)
    found = encoders.specs()
    if silent:
        found = replace(found, audio=run.specs.audio)
    way_out = "give the weights that its shards were made with: --set encoders.ROLE.path=FOLDER"
    run.specs.require(found, f"encoders to sample {run.root} with", way_out)
    return encoders


def write_sample(generator: Generator, prompt: Prompt, config: SamplerConfig, out: Path) -> Path:
    """One mp4, and a JSON beside it that says how it was made."""
    media = generator.make(prompt, config)
    run = generator.run
    name = storage.digest_json([prompt.video, prompt.audio, asdict(config)])[:8]
    path = out / f"step-{generator.step:08d}-{name}-{prompt.seed}.mp4"
    write_mp4(path, media.frames, run.clip.fps, media.samples, run.specs.audio.sample_rate)
    storage.write_json(
        path.with_suffix(".json"),
        {
            "captions": {"video": prompt.video, "audio": prompt.audio},
            "seed": prompt.seed,
            "mode": run.config.mode,
            "step": generator.step,
            "sampler": asdict(config),
        },
    )
    return path
