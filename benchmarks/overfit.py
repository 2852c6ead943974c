"""A model learns a handful of real clips by heart, and samples show them: the whole path learns.

    python benchmarks/overfit.py MEDIA... --out OUT [--clips 8] [--preset demo]
        [--steps 1600 700 150] [--learning-rates 1e-3 2e-4 5e-5]

Of what the policy keeps of the videos, clips of different sources with different captions are
encoded and trained on, all of them in every step: OUT/run-1 at the first rate, then, from its
export, OUT/run-2 at the second, and so on. Then each caption is sampled, from noise that was not
trained on and without guidance. OUT/report.html has the curves, and each sample beside its clip.
Printed are the errors of the velocities before and after, over times and noise that are the same
for both, and for each sample which of the clips it is nearest to. Run again it goes on.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avdata.encoders.choice import Encoders, EncodersConfig
from avdata.encoders.spec import ClipShape
from avdata.errors import UsageError
from avdata.jobs.caption import caption
from avdata.jobs.engine import Engine
from avdata.jobs.ingest import ingest
from avdata.jobs.model import export
from avdata.jobs.train import train
from avdata.pipeline.measure.source import IngestConfig
from avdata.pipeline.record import Clip
from avdata.pipeline.report.report import report
from avdata.pipeline.selection import require_kept
from avdata.pipeline.shards.dataset import Dataset, open_dataset, read_sample
from avdata.pipeline.shards.encode import encode_clips
from avdata.pipeline.shards.plan import PlanSettings, plan_shards
from avdata.pipeline.shards.writer import is_done, write_dataset, write_shard
from avdata.pipeline.sources.clips import clip_media
from avdata.pipeline.sources.copies import LocalCopies
from avdata.trainer import checkpoint
from avdata.trainer.config import InitConfig, TrainConfig
from avdata.trainer.flow import Clean, SamplerConfig, flow_loss
from avdata.trainer.group import joined
from avdata.trainer.loader import padded
from avdata.trainer.metrics import read_metrics
from avdata.trainer.model.avfulldit import AVFullDiT
from avdata.trainer.model.config import preset
from avdata.trainer.randomness import AUDIO, VIDEO, noise
from avdata.trainer.run import Run
from avdata.trainer.sample import open_generator, prompts_from, write_sample

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
SAMPLER = SamplerConfig(steps=50, guidance_video=1.0, guidance_audio=1.0)


Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Errors:
    """Mean squared errors of the velocities at each of `TIMES`."""

    video: list[float]
    audio: list[float]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("media", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--steps", type=int, nargs="+", default=[1600, 700, 150])
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[1e-3, 2e-4, 5e-5])
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--height", type=int, default=96)
    parser.add_argument("--width", type=int, default=160)
    given = parser.parse_args()
    encoders = EncodersConfig().open(torch.device("cpu"))
    shape = ClipShape(height=given.height, width=given.width)
    dataset = _encoded(_chosen(given.media, given.out, given.clips), shape, encoders, given.out)
    config = TrainConfig(
        model=preset(given.preset),
        batch_size=given.clips,
        weight_decay=0.0,
        caption_dropout=0.0,
        val_samples=0,
        checkpoint_every=200,
    )
    runs: list[Run] = []
    for steps, rate in zip(given.steps, given.learning_rates, strict=True):
        config = replace(config, steps=steps, learning_rate=rate)
        if runs:
            config = replace(config, init=_start(runs[-1], given.out))
        root = given.out / f"run-{len(runs) + 1}"
        runs.append(train(root, dataset.root, config))
    lines = [line for run in runs for line in _losses(run)]
    lines += [*_learned(runs[0], runs[-1], dataset), *_sampled(runs[-1], dataset)]
    page = report([run.root for run in runs], given.out / "report.html")
    sys.stdout.write("\n".join([*lines, str(page)]) + "\n")


def _start(before: Run, out: Path) -> InitConfig:
    """All of a run's weights, by way of its export."""
    folder = out / f"{before.root.name}-export"
    if not folder.exists():
        export(before.root, folder)
    return InitConfig(str(folder / "video"), str(folder / "audio"), str(folder))


def _chosen(media: Sequence[Path], out: Path, count: int) -> list[Clip]:
    """One clip a source, all with sound and with captions of their own."""
    manifest = ingest(media, out / "manifest", IngestConfig(), engine=Engine(inline=True))
    caption(manifest.root)
    found: dict[object, Clip] = {}
    sources = set()
    for clip in sorted(require_kept(manifest), key=lambda clip: clip.clip_id):
        told = clip.captions and (clip.captions.video, clip.captions.audio)
        if clip.source.digest not in sources and told not in found and clip.audio is not None:
            found[told] = clip
            sources.add(clip.source.digest)
    if len(found) < count:
        raise UsageError(f"{len(found)} clips with captions of their own, {count} wanted")
    return list(found.values())[:count]


def _encoded(clips: Sequence[Clip], shape: ClipShape, encoders: Encoders, out: Path) -> Dataset:
    shards = out / "shards"
    plans = plan_shards(clips, lambda _: shape, PlanSettings(val_fraction=0.0))
    for plan in plans:
        if not is_done(shards, plan):
            media = [clip_media(clip, shape, LocalCopies(1.0)) for clip in plan.clips]
            write_shard(shards, plan, encode_clips(plan.clips, media, shape, encoders))
    write_dataset(shards, encoders.specs, plans, {"config": {}})
    return open_dataset(shards)


def _losses(run: Run) -> list[str]:
    """What training saw, at random times: means of 20 steps, since single ones scatter."""
    metrics = read_metrics(run.metrics)
    marks = [k for k in (20, 100, 300, 1000, 2000, 3000, 5000) if k < len(metrics)]
    rows = [f"| {run.root.name}, steps up to | loss, video | audio |", "|---|---|---|"]
    for mark in [*marks, len(metrics)]:
        some = metrics[max(0, mark - 20) : mark]
        means = (
            statistics.mean(one[name] for one in some) for name in ("loss_video", "loss_audio")
        )
        rows.append(f"| {mark} | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")
    seconds = statistics.median(line["seconds"] for line in metrics)
    return [*rows, f"{seconds:.2f} s a step (median)"]


def _learned(first: Run, run: Run, dataset: Dataset) -> list[str]:
    """Before the first run and after the last."""
    config = first.config
    model = AVFullDiT.build(config.model, run.specs, run.clip, config.mode, config.seed)
    before = _errors(model, run, dataset)
    with joined("cpu"):
        checkpoint.load_model(run, model)
    after = _errors(model, run, dataset)
    rows = ["| t | video before | after | audio before | after |", "|---|---|---|---|---|"]
    means = [statistics.mean(one) for one in (before.video, after.video, before.audio, after.audio)]
    for t, *row in zip(TIMES, before.video, after.video, before.audio, after.audio, strict=True):
        rows.append(f"| {t} | " + " | ".join(f"{value:.4f}" for value in row) + " |")
    rows.append("| mean | " + " | ".join(f"{value:.4f}" for value in means) + " |")
    return [*rows, f"falls: video {means[0] / means[1]:.1f} x, audio {means[2] / means[3]:.1f} x"]


@torch.no_grad()
def _errors(model: AVFullDiT, run: Run, dataset: Dataset) -> Errors:
    samples = [read_sample(dataset.root, entry) for entry in dataset.samples("train")]
    longest = run.config.model
    errors = Errors([], [])
    for number, t in enumerate(TIMES):
        seen, heard = [], []
        for k, one in enumerate(samples):
            told = one.video_text, longest.max_video_text
            seen.append(_clean(one.video, *told, noise(VIDEO, one.video.shape, number, k)))
            told = one.audio_text, longest.max_audio_text
            heard.append(_clean(one.audio, *told, noise(AUDIO, one.audio.shape, number, k)))
        times, share = torch.full((len(samples),), t), torch.full((len(samples),), 1 / len(samples))
        losses = flow_loss(model, _stacked(seen), _stacked(heard), times, share)
        errors.video.append(float(losses.video))
        errors.audio.append(0.0 if losses.audio is None else float(losses.audio))
    return errors


def _clean(latents: Array, text: Array, longest: int, drawn: Tensor) -> Clean:
    embedded = padded(torch.from_numpy(text).float(), longest, captioned=True)
    return Clean(torch.from_numpy(latents).float(), drawn, *embedded)


def _stacked(parts: Sequence[Clean]) -> Clean:
    return Clean(
        torch.stack([one.latents for one in parts]),
        torch.stack([one.noise for one in parts]),
        torch.stack([one.text for one in parts]),
        torch.stack([one.text_mask for one in parts]),
    )


def _sampled(run: Run, dataset: Dataset) -> list[str]:
    """Each sample against all clips, decoded from their latents: own must be nearest."""
    generator = open_generator(run, torch.device("cpu"))
    entries = dataset.samples("train")
    true = [generator.true(entry) for entry in entries]
    rows = [
        "| clip | picture, PSNR | nearest | sound, likeness | nearest |",
        "|---|---|---|---|---|",
    ]
    right = [0, 0]
    for own, prompt in enumerate(prompts_from(dataset, entries, seed=1000)):
        made = generator.make(prompt, SAMPLER)
        write_sample(generator, prompt, SAMPLER, run.root / "samples")
        seen = [_psnr(made.frames, one.frames) for one in true]
        heard = [_likeness(made.samples, one.samples) for one in true]
        near = int(np.argmax(seen)), int(np.argmax(heard))
        right = [count + (one == own) for count, one in zip(right, near, strict=True)]
        rows.append(
            f"| {own} {entries[own].key[:8]} | {seen[own]:.1f} dB | {near[0]} "
            f"| {heard[own]:.2f} | {near[1]} |"
        )
    total = len(entries)
    return [*rows, f"own clip is nearest: picture {right[0]} of {total}, sound {right[1]}"]


def _psnr(made: NDArray[np.uint8], true: NDArray[np.uint8]) -> float:
    error = np.square(made.astype(float) - true).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def _likeness(made: NDArray[np.float32], true: NDArray[np.float32]) -> float:
    """Cosine of the two waveforms, sample by sample: 1 is the same sound at any loudness."""
    length = np.linalg.norm(made) * np.linalg.norm(true)
    return float((made * true).sum() / max(float(length), 1e-9))


if __name__ == "__main__":
    main()
