"""Clips made now and then while a run trains, of held-out captions, for eyes and ears.

Captions come from the shards as the model reads them, so no text encoder is loaded.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn

from avdata import storage
from avdata.encoders.encoder import AudioEncoder, VideoEncoder
from avdata.errors import CorruptShard
from avdata.pipeline.media.clip import ClipMedia
from avdata.pipeline.shards.dataset import SampleEntry, read_members
from avdata.trainer.checkpoint import Weights
from avdata.trainer.decode import as_media
from avdata.trainer.denoise import computing
from avdata.trainer.flow import Clean, sample
from avdata.trainer.group import Group
from avdata.trainer.loader import HeldOutSample, Reader
from avdata.trainer.model.modality import Conditioned
from avdata.trainer.randomness import SAMPLE_AUDIO, SAMPLE_VIDEO, noise
from avdata.trainer.run import Run


class Preview:
    """Opens its decoders at the first clip; SpecMismatch where they are not those of the shards."""

    def __init__(
        self, run: Run, reader: Reader, entries: Sequence[SampleEntry], group: Group
    ) -> None:
        found, audio = run.encoders.specs(), run.config.mode == "t2av"
        # Those of text, and of sound for a silent twin, are not used here.
        sound = found.audio if audio else run.specs.audio
        used = replace(run.specs, video=found.video, audio=sound)
        run.specs.require(used, f"decoders for clips of {run.root}")
        self._run, self._reader, self._group = run, reader, group
        self._entries = entries
        self._decoders: tuple[VideoEncoder, AudioEncoder | None] | None = None

    def make(self, model: nn.Module, step: int, weights: Weights) -> list[str]:
        """Writes RUN/samples/step-...mp4; answers their names. All ranks call it and share them.

        Clip k starts from noise of seed k, whoever makes it and in either mode; there is none of
        a damaged sample.
        """
        count, group = len(self._entries), self._group
        written = torch.zeros(count, dtype=torch.float64)
        model.eval()
        for turn in range(-(-count // group.world)):
            mine = turn * group.world + group.rank
            read = self._reader.read_or_blank(self._entries[mine % count], (mine % count, 0))
            seen, heard = self._conditions(mine % count, read)
            with torch.no_grad(), computing(self._run.config, group.device):
                made = sample(model, seen, heard, self._run.config.sampler)
            if mine < count and not read.damaged:
                media = as_media(self._run, made, *self._open())
                written[mine] = self._write(mine, step, weights, media)
        model.train()
        there = group.summed({"written": written})["written"]
        return [self._name(step, weights, number) for number in range(count) if there[number]]

    def _conditions(
        self, number: int, read: HeldOutSample
    ) -> tuple[Conditioned, Conditioned | None]:
        seen, heard = read.video, read.audio
        device = self._group.device

        def conditioned(stream: int, clean: Clean) -> Conditioned:
            drawn = noise(stream, tuple(clean.latents.shape), number)
            parts = (drawn, clean.text.float(), clean.text_mask)
            return Conditioned(*(one[None].to(device) for one in parts))

        video = conditioned(SAMPLE_VIDEO, seen)
        return video, None if heard is None else conditioned(SAMPLE_AUDIO, heard)

    def _open(self) -> tuple[VideoEncoder, AudioEncoder | None]:
        if self._decoders is None:
            encoders, device = self._run.encoders, self._group.device
            hears = self._run.config.mode == "t2av"
            audio = encoders.audio.open(device) if hears else None
            self._decoders = encoders.video.open(device), audio
        return self._decoders

    def _write(self, number: int, step: int, weights: Weights, media: ClipMedia) -> bool:
        """False where the sample's captions are damaged."""
        from avdata.pipeline.media.write import write_mp4

        run, entry = self._run, self._entries[number]
        path = run.root / "samples" / self._name(step, weights, number)
        try:
            facts = json.loads(read_members(run.shards, entry, ["json"])["json"])
        except CorruptShard as error:
            self._reader.quarantine.add_held_out(entry.key, entry.tar, error)
            return False
        rate = run.specs.audio.sample_rate
        write_mp4(path, media.frames, run.clip.fps, media.samples, rate)
        storage.write_json(
            path.with_suffix(".json"),
            {
                "captions": facts["captions"],
                "clip": entry.key,
                "seed": number,
                "mode": run.config.mode,
                "step": step,
                "weights": weights,
                "sampler": asdict(run.config.sampler),
            },
        )
        return True

    def _name(self, step: int, weights: Weights, number: int) -> str:
        return str(Path(f"step-{step:08d}-{weights}-{number}.mp4"))
