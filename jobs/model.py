"""`avdata model`: what a model is and costs, whether pretrained towers fit it, and their export."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from avdata.config import to_plain
from avdata.encoders.choice import EncodersConfig
from avdata.encoders.spec import ClipShape, Specs
from avdata.errors import UsageError
from avdata.jobs.shell import Result
from avdata.pipeline.shards.dataset import open_dataset
from avdata.trainer import checkpoint
from avdata.trainer.checkpoint import Weights
from avdata.trainer.config import InitConfig
from avdata.trainer.group import joined
from avdata.trainer.model.avfulldit import AVFullDiT
from avdata.trainer.model.config import Mode, ModelConfig
from avdata.trainer.model.config import preset as preset_of
from avdata.trainer.model.cost import PAPER_SPECS, Cost, cost, meta_model
from avdata.trainer.run import open_run
from avdata.trainer.surgery import KINDS, Tally, export_towers, load_towers, plain, tally


@dataclass(frozen=True, slots=True)
class ModelJob:
    """Which model, for what clips, from which towers."""

    mode: Mode = "t2av"
    model: ModelConfig = field(default_factory=ModelConfig)
    init: InitConfig = field(default_factory=InitConfig)
    """Of load: the towers to check."""
    encoders: Literal["paper", "embedded"] = "paper"
    """Whose latents and embeddings the model takes; those of `shards` where they are given."""
    clip: ClipShape = field(default_factory=ClipShape)
    """Of those who have no shards."""
    shards: Path | None = None
    """Folder that `avdata encode` made."""
    weights: Weights = "raw"
    """Of export: as trained, or ema, their average."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What `show` and `load` answer."""

    parts: dict[str, dict[str, Tally]]
    cost: Cost
    tau: float
    """Of AVSyncRoPE: a latent frame of video lasts as long as so many of audio."""

    def lines(self) -> list[str]:
        """A table, and the cost under it."""
        heads = "".join(f"{kind:>24}" for kind in KINDS)
        lines = [f"{'tensors, parameters':26}{heads}"]
        rows = [*self.parts.items(), ("all", self.total())]
        for part, row in rows:
            cells = "".join(f"{row[k].tensors:>8}{row[k].parameters:>16,}" for k in KINDS)
            lines.append(f"{part:26}{cells}")
        audio = f" + {self.cost.tokens_audio} audio" if self.cost.tokens_audio else ""
        lines.append(f"tokens: {self.cost.tokens_video} video{audio}; tau {self.tau:.4f}")
        lines.append(
            f"one sample: {self.cost.flops_forward / 1e12:.4g} TFLOP forward, "
            f"{self.cost.flops_step / 1e12:.4g} TFLOP forward and backward"
        )
        return lines

    def total(self) -> dict[str, Tally]:
        """Over all parts."""
        rows = self.parts.values()
        return {
            kind: Tally(
                sum(row[kind].tensors for row in rows), sum(row[kind].parameters for row in rows)
            )
            for kind in KINDS
        }

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        parts = plain({**self.parts, "all": self.total()})
        return {"parts": parts, "cost": asdict(self.cost), "tau": self.tau}


def sizes_of(preset: str) -> dict[str, Any]:
    """What a preset decides of a job: the model, and the encoders it is meant for."""
    encoders = "paper" if preset == "wan5b-tangoflux" else "embedded"
    return {"model": to_plain(preset_of(preset)), "encoders": encoders}


def perform(
    action: str, root: Path | None, out: Path | None, job: ModelJob, result: Result
) -> None:
    """The command; UsageError for another action, or options of another one."""
    towers = job.init != InitConfig()
    if action == "export" and root is not None and out is not None:
        paths = [str(path) for path in export(root, out, job.weights)]
        for path in paths:
            result.line(path)
        result.end({"files": paths})
        return
    if root is not None or out is not None or action != ("load" if towers else "show"):
        raise UsageError(
            f"{action}: write avdata model show, avdata model load --set init.video=PATH "
            "--set init.audio=PATH, or avdata model export RUN --out DIR"
        )
    shown = show(job)
    for line in shown.lines():
        result.line(line)
    result.end(shown.plain())


def show(job: ModelJob) -> Shown:
    """Counts on the meta device: of the towers in `init`, if any, only headers are read.

    UsageError where one does not fit.
    """
    specs, clip = _taken(job)
    model = meta_model(job.model, specs, clip, job.mode)
    if job.mode == "t2v" and job.init.audio is not None:
        raise UsageError("init.audio means nothing in mode t2v, which has no audio tower")
    found = tally(model, load_towers(model, job.init))
    try:
        return Shown(found, cost(model, specs, clip), model.tau)
    except ValueError as error:
        raise UsageError(f"clip: {error}") from error


def export(root: Path, out: Path, weights: Weights = "raw") -> list[Path]:
    """The towers of a run's newest checkpoint, see `export_towers`."""
    run = open_run(root)
    with torch.device("meta"):
        model = AVFullDiT(run.config.model, run.specs, run.clip, run.config.mode)
    model = model.to_empty(device="cpu")
    with joined("cpu"):
        checkpoint.load_model(run, model, weights)
    return export_towers(model, out)


def _taken(job: ModelJob) -> tuple[Specs, ClipShape]:
    if job.shards is not None:
        dataset = open_dataset(job.shards)
        return dataset.specs, dataset.clip
    return (PAPER_SPECS if job.encoders == "paper" else EncodersConfig().specs()), job.clip
