"""`avdata demo`: the whole chain on this machine, without network, weights or GPU.

    OUT/corpus     generated films with exact truth
    OUT/manifest   every clip, measured, labelled, decided, captioned
    OUT/shards     latents and text embeddings
    OUT/t2av       the joint model, OUT/t2v its video-only twin
    OUT/report.html

Parts that are already there are not made again, so a demo that was stopped goes on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from avdata.jobs.caption import caption
from avdata.jobs.encode import EncodeConfig, encode
from avdata.jobs.engine import Engine
from avdata.jobs.ingest import ingest
from avdata.jobs.sample import prompts_of, sample
from avdata.jobs.train import Start, progress_of, train
from avdata.pipeline.measure.source import IngestConfig
from avdata.pipeline.report.report import report
from avdata.pipeline.shards.plan import PlanSettings
from avdata.pipeline.world.corpus import WorldConfig, generate
from avdata.trainer.config import TrainConfig
from avdata.trainer.flow import SamplerConfig


@dataclass(frozen=True, slots=True)
class DemoConfig:
    """Sizes that two processor cores finish in minutes."""

    world: WorldConfig = field(default_factory=lambda: WorldConfig(num_videos=56))
    ingest: IngestConfig = field(default_factory=IngestConfig)
    encode: EncodeConfig = field(
        default_factory=lambda: EncodeConfig(
            height=96, width=160, plan=PlanSettings(samples_per_shard=32)
        )
    )
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=400, batch_size=8, learning_rate=2e-3, warmup_steps=20
        )
    )
    # A model this young is led into noise by more guidance.
    sampler: SamplerConfig = field(
        default_factory=lambda: SamplerConfig(steps=25, guidance_video=1.5, guidance_audio=1.5)
    )
    num_samples: int = 2
    processes: int = 2


def demo(
    out: Path, media: Sequence[Path], config: DemoConfig, say: Callable[[str], None]
) -> dict[str, Any]:
    """Everything; answers both runs' losses and the report's path."""
    engine = Engine()
    say("1/6 a corpus with exact truth")
    generate(out / "corpus", config.world)
    say("2/6 ingest: shots, clips, measurements, labels, policy")
    manifest = out / "manifest"
    ingest([out / "corpus", *media], manifest, config.ingest, engine=engine)
    say(f"    captions for {caption(manifest).captioned} kept clips")
    say("3/6 encode: latents and text embeddings into shards")
    dataset = encode(manifest, out / "shards", config.encode, engine)
    losses = {}
    for step, mode in (("4/6 train the joint model", "t2av"), ("5/6 train its twin", "t2v")):
        say(step)
        settings = replace(config.train, mode="t2av" if mode == "t2av" else "t2v")
        run = train(out / mode, dataset.root, settings, Start(config.processes))
        losses[mode] = progress_of(run)
    say("6/6 samples and report")
    for mode in losses:
        prompts = prompts_of(out / mode, config.num_samples, seed=0)
        sample(out / mode, prompts, config.sampler, "cpu")
    page = report([out], out / "report.html")
    return {"runs": losses, "report": str(page)}
