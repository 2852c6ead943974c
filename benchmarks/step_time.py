"""Training steps of the joint model against what its operations foretell from its twin's.

    python benchmarks/step_time.py [--preset demo] [--batch 4] [--rounds 15] [--threads 1]

A step is forward, backward and AdamW in float32 on random latents of the paper's 2 s clips. The
operations of both are counted on the meta device; the joint model's foretold time is the twin's
measured one times their ratio. Rounds alternate between the two, so that both meet the same noise
of the machine; given are medians, and between the first and third quartile. `spread` of the ratio
is over the rounds' own ratios.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch

from avdata.encoders.choice import EncodersConfig
from avdata.encoders.spec import ClipShape, Specs
from avdata.trainer.flow import Clean, flow_loss
from avdata.trainer.model.avfulldit import AVFullDiT
from avdata.trainer.model.config import Mode, preset
from avdata.trainer.model.cost import cost, meta_model

CLIP = ClipShape()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    specs, config = EncodersConfig().specs(), preset(given.preset)
    modes: tuple[Mode, Mode] = ("t2v", "t2av")
    operations = {
        mode: cost(meta_model(config, specs, CLIP, mode), specs, CLIP, given.batch).flops_step
        for mode in modes
    }
    steps = {
        mode: _step(AVFullDiT.build(config, specs, CLIP, mode, seed=0), specs, given.batch)
        for mode in modes
    }
    for step in steps.values():  # Memory and kernels are made ready once.
        _seconds(step)
    rounds = [{mode: _seconds(steps[mode]) for mode in modes} for _ in range(given.rounds)]
    lines = ["| | GFLOP a step | seconds a step | GFLOP/s |", "|---|---|---|---|"]
    for mode in modes:
        taken = [one[mode] for one in rounds]
        rate = operations[mode] / 1e9 / statistics.median(taken)
        lines.append(f"| {mode} | {operations[mode] / 1e9:.1f} | {_spread(taken)} | {rate:.1f} |")
    ratio = operations["t2av"] / operations["t2v"]
    foretold = [one["t2v"] * ratio for one in rounds]
    lines.append(f"| t2av, foretold | | {_spread(foretold)} | |")
    excess = [one["t2av"] / one["t2v"] for one in rounds]
    lines.append(f"\noperations of t2av / t2v: {ratio:.3f}; time: {_spread(excess)}")
    sys.stdout.write("\n".join(lines) + "\n")


def _step(model: AVFullDiT, specs: Specs, batch: int) -> Callable[[], None]:
    config = model.config
    shape = specs.video.latent_shape(CLIP.num_frames, CLIP.height, CLIP.width)
    sound = (specs.audio.channels, specs.audio.latent_length(CLIP.num_samples))
    video = _clean(batch, shape, config.max_video_text, specs.video_text.width)
    audio = _clean(batch, sound, config.max_audio_text, specs.audio_text.width)
    t, share = torch.rand(batch), torch.full((batch,), 1 / batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step() -> None:
        heard = audio if model.mode == "t2av" else None
        flow_loss(model, video, heard, t, share).total.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _clean(batch: int, shape: tuple[int, ...], tokens: int, width: int) -> Clean:
    mask = torch.ones(batch, tokens, dtype=torch.bool)
    latents, noise = torch.randn(2, batch, *shape)
    return Clean(latents, noise, torch.randn(batch, tokens, width), mask)


def _seconds(work: Callable[[], None]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _spread(values: list[float]) -> str:
    first, middle, third = statistics.quantiles(values, n=4)
    return f"{middle:.3f} ({first:.3f} to {third:.3f})"


if __name__ == "__main__":
    main()
