"""From a checkpoint and captions to mp4 files with sound, and the clips they were asked to be."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from avdata import storage
from avdata.encoders.choice import Encoders, EncodersConfig
from avdata.errors import UsageError
from avdata.pipeline.media.clip import ClipMedia
from avdata.pipeline.media.write import write_mp4
from avdata.pipeline.shards.dataset import Dataset, SampleEntry, read_members
from avdata.pipeline.shards.npy import read_npy
from avdata.trainer import checkpoint
from avdata.trainer.decode import as_media
from avdata.trainer.flow import SamplerConfig, sample
from avdata.trainer.group import joined
from avdata.trainer.loader import padded
from avdata.trainer.model.avfulldit import AVFullDiT
from avdata.trainer.model.modality import Conditioned, Velocity
from avdata.trainer.randomness import SAMPLE_AUDIO, SAMPLE_VIDEO, noise
from avdata.trainer.run import Run

TRUE = "clips"
"""Folder beside the samples."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What to make: the two captions and the seed of the noise, not negative."""

    video: str
    audio: str
    seed: int = 0
    clip: SampleEntry | None = None
    """The clip of the run's shards that the captions are of."""
    negative_video: str | None = None
    """What to be guided away from; None is no caption, as training drops them."""
    negative_audio: str | None = None


def prompts_from(dataset: Dataset, entries: Sequence[SampleEntry], seed: int) -> list[Prompt]:
    """The captions of some clips; the k-th has the seed `seed` + k."""
    prompts = []
    for number, entry in enumerate(entries):
        captions = json.loads(read_members(dataset.root, entry, ["json"])["json"])["captions"]
        prompts.append(Prompt(captions["video"], captions["audio"], seed + number, entry))
    return prompts


def require_guided(run: Run, prompts: Iterable[Prompt], config: SamplerConfig) -> None:
    """UsageError for a negative caption that nothing would be guided away from."""
    silent = run.config.mode == "t2v"
    scales = [("guidance_video", config.guidance_video)]
    if not silent:
        scales.append(("guidance_audio", config.guidance_audio))
    for prompt in prompts:
        if prompt.negative_audio is not None and silent and not run.config.model.audio_caption:
            raise UsageError(
                f"{run.root}: its model (mode t2v) reads no audio caption, so "
                f"{prompt.negative_audio!r} cannot be avoided; leave the negative audio caption out"
            )
        unlike = prompt.negative_video if prompt.negative_audio is None else prompt.negative_audio
        if unlike is not None and all(scale == 1 for _, scale in scales):
            named = " and ".join(f"{name} = {scale}" for name, scale in scales)
            raise UsageError(
                f"{named} is no guidance, so {unlike!r} cannot be avoided; "
                "give another number, or leave negative captions out"
            )


@dataclass(frozen=True, slots=True)
class Generator:
    """A run's model and the encoders it was trained with, but for that of sound in mode t2v."""

    run: Run
    model: AVFullDiT
    encoders: Encoders
    step: int

    def make(self, prompt: Prompt, config: SamplerConfig) -> ClipMedia:
        """One clip, whole frames for as long as there is sound; silent samples in mode t2v.

        UsageError for negative captions that the model or `config` has no use for.
        """
        require_guided(self.run, [prompt], config)
        run, specs, clip = self.run, self.run.specs, self.run.clip
        shape = specs.video.latent_shape(clip.num_frames, clip.height, clip.width)
        length = specs.audio.latent_length(clip.num_samples)
        seen = self._noisy(SAMPLE_VIDEO, shape, prompt)
        hears = run.config.mode == "t2av" or run.config.model.audio_caption
        heard = self._noisy(SAMPLE_AUDIO, (specs.audio.channels, length), prompt) if hears else None
        unlike = (
            self._retold(SAMPLE_VIDEO, seen, prompt.negative_video),
            self._retold(SAMPLE_AUDIO, heard, prompt.negative_audio),
        )
        return self._decoded(sample(self.model, seen, heard, config, unlike))

    def true(self, entry: SampleEntry) -> ClipMedia:
        """A clip of the run's shards, decoded from its latents: as near as a sample could come.

        CorruptShard when the bytes are not those that were written.
        """
        roles = ["video"] + (["audio"] if self.run.config.mode == "t2av" else [])
        data = read_members(self.run.dataset().root, entry, [f"{role}.npy" for role in roles])
        device = next(self.model.parameters()).device
        latents = [
            torch.from_numpy(read_npy(data[f"{role}.npy"])).float()[None].to(device)
            for role in roles
        ]
        return self._decoded(Velocity(latents[0], latents[1] if len(latents) == 2 else None))

    @torch.inference_mode()
    def _decoded(self, made: Velocity) -> ClipMedia:
        return as_media(self.run, made, self.encoders.video, self.encoders.audio)

    def _noisy(self, stream: int, shape: tuple[int, ...], prompt: Prompt) -> Conditioned:
        caption = prompt.video if stream == SAMPLE_VIDEO else prompt.audio
        text, mask = self._embedded(stream, caption)
        latents = noise(stream, shape, prompt.seed)
        device = next(self.model.parameters()).device
        return Conditioned(latents[None].to(device), text, mask)

    def _retold(
        self, stream: int, like: Conditioned | None, caption: str | None
    ) -> Conditioned | None:
        if like is None or caption is None:
            return None
        return Conditioned(like.latents, *self._embedded(stream, caption))

    def _embedded(self, stream: int, caption: str) -> tuple[Tensor, Tensor]:
        """Embeddings and mask of a batch of one."""
        model, encoders = self.run.config.model, self.encoders
        encoder, longest = (
            (encoders.video_text, model.max_video_text)
            if stream == SAMPLE_VIDEO
            else (encoders.audio_text, model.max_audio_text)
        )
        text, mask = padded(encoder.encode([caption])[0], longest, captioned=True)
        device = next(self.model.parameters()).device
        return text[None].to(device), mask[None].to(device)


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
    """One mp4, and a JSON beside it that says how it was made.

    Of a prompt's clip there is an mp4 in the folder `clips`, too, decoded from its latents.
    """
    media = generator.make(prompt, config)
    run = generator.run
    unlike = [prompt.negative_video, prompt.negative_audio]
    name = storage.digest_json([prompt.video, prompt.audio, unlike, asdict(config)])[:8]
    path = out / f"step-{generator.step:08d}-{name}-{prompt.seed}.mp4"
    write_mp4(path, media.frames, run.clip.fps, media.samples, run.specs.audio.sample_rate)
    true = None if prompt.clip is None else _write_true(generator, prompt.clip, out / TRUE)
    storage.write_json(
        path.with_suffix(".json"),
        {
            "captions": {"video": prompt.video, "audio": prompt.audio},
            "negative": {"video": prompt.negative_video, "audio": prompt.negative_audio},
            "seed": prompt.seed,
            "mode": run.config.mode,
            "step": generator.step,
            "sampler": asdict(config),
            "true": None if true is None else f"{TRUE}/{true.name}",
        },
    )
    return path


def _write_true(generator: Generator, entry: SampleEntry, out: Path) -> Path:
    path = out / f"{entry.key}.mp4"
    if not path.exists():
        media, run = generator.true(entry), generator.run
        write_mp4(path, media.frames, run.clip.fps, media.samples, run.specs.audio.sample_rate)
    return path
