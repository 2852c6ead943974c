"""A run, built and trained: every process of the group calls `train`."""

import contextlib
import dataclasses
import functools
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from avdata.config import to_plain
from avdata.encoders.spec import ClipShape, Specs
from avdata.progress import progress
from avdata.trainer import checkpoint
from avdata.trainer.batch import Batch
from avdata.trainer.config import TrainConfig
from avdata.trainer.denoise import Denoising
from avdata.trainer.ema import Ema
from avdata.trainer.group import Group, joined
from avdata.trainer.loader import Loader, open_loader
from avdata.trainer.lock import alone
from avdata.trainer.loop import Loop, LoopConfig, run_loop
from avdata.trainer.measure import Measures
from avdata.trainer.metrics import MetricsFile
from avdata.trainer.model.avfulldit import AVFullDiT
from avdata.trainer.model.config import Mode, ModelConfig
from avdata.trainer.model.cost import Cost, cost_of_latents, meta_model
from avdata.trainer.model.units import compile_units, units
from avdata.trainer.optimizer import Rates, adamw
from avdata.trainer.parallel import parallelized, threads_of_each
from avdata.trainer.run import Run
from avdata.trainer.saver import Saver, SaverConfig
from avdata.trainer.schedule import share_of_peak
from avdata.trainer.step import Learner
from avdata.trainer.stop import listening
from avdata.trainer.surgery import loaded_parts, part_of, start_from
from avdata.trainer.throughput import peak_tflops
from avdata.trainer.track import require_installed, tracked
from avdata.versions import versions


def train(run: Run) -> int:
    """Trains to `steps` or until it is told to stop; answers the step reached.

    A group of one where no launcher started this process.
    """
    config = run.config
    require_installed(config.track)
    with (
        joined(config.device) as group,
        listening(config.stop_after_minutes) as stop,
        alone(run.root, group, stop),
        _determined(config),
        _unalarmed(),
    ):
        first = checkpoint.latest_for_all(run) or 0
        run.require_shards()
        loader = open_loader(run.shards, config, group, run.root / "quarantine.jsonl")
        learner = _learner(run, group, pretrained=first == 0)
        if first:
            loader.step_of(checkpoint.facts(run, first)["loader"])
            checkpoint.load(run, first, learner.parallel, learner.optimizer, learner.ema)
        measures = Measures(run, learner, loader)
        task = Denoising(config, loader, group.device, _costs(run), measures.after)
        with contextlib.closing(_saver(run, group)) as saver, _reporting(run, group, first) as told:
            loop = Loop(
                name=str(run.root),
                config=_when(config, group.device),
                learner=learner,
                task=task,
                saver=saver,
                checkpoint=lambda step: _saved(run, learner, loader, step),
                report=told,
            )
            return run_loop(loop, first, stop)


def _learner(run: Run, group: Group, *, pretrained: bool) -> Learner:
    """`pretrained` reads the towers that the run starts from; a checkpoint has them."""
    config = run.config
    if group.device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads_of_each(group.world))
    model = AVFullDiT.build(config.model, run.specs, run.clip, config.mode, config.seed)
    parts = start_from(run, model, report=group.rank == 0) if pretrained else loaded_parts(run)
    if config.trained == "new":
        model.freeze_towers()
    if config.activation_checkpointing:
        model.checkpoint_activations()
    half = config.precision == "bfloat16"
    layers = units(model)
    if config.compile is not None:
        compile_units(layers, config.compile)
    parallel = parallelized(model, layers, config.parallel, group, half)
    rates = Rates(
        new=config.learning_rate,
        pretrained=config.learning_rate_pretrained or config.learning_rate,
        weight_decay=config.weight_decay,
        betas=(config.beta1, config.beta2),
    )
    optimizer = adamw(model, rates, lambda name: part_of(name) in parts)
    ema = None if config.ema_decay is None else Ema(model, config.ema_decay)
    return Learner(group, model, parallel, optimizer, ema, config.clip_norm)


def _saver(run: Run, group: Group) -> Saver:
    config = run.config
    kept = SaverConfig(
        config.keep_checkpoints, config.background_checkpoints, config.allowed_checkpoint_failures
    )
    return Saver(run.checkpoints, kept, group)


def _saved(
    run: Run, learner: Learner, loader: Loader, step: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    state = checkpoint.state_of(learner.parallel, learner.optimizer, learner.ema)
    facts = {
        "step": step,
        "loader": loader.state(step),
        "config": to_plain(run.config),
        "dataset_digest": run.dataset_digest,
        "specs": dataclasses.asdict(run.specs),
        "processes": learner.group.world,
        "versions": versions(),
    }
    return state, facts


def _when(config: TrainConfig, device: torch.device) -> LoopConfig:
    return LoopConfig(
        steps=config.steps,
        val_every=config.val_every,
        sample_every=config.sample_every,
        checkpoint_every=config.checkpoint_every,
        not_finite=config.not_finite,
        most_skipped=config.most_skipped,
        rate=lambda step: share_of_peak(config.schedule, step, config.steps, config.warmup_steps),
        peak_tflops=peak_tflops(device, config.precision, config.peak_tflops),
    )


def _costs(run: Run) -> Callable[[Batch], Cost]:
    config = run.config

    def of(batch: Batch) -> Cost:
        length = 0 if batch.audio is None else batch.audio.latents.shape[-1]
        shapes = tuple(batch.video.latents.shape[1:]), length
        frozen = config.trained == "new"
        return _cost(config.model, run.specs, run.clip, config.mode, frozen, shapes)

    return of


@functools.cache
def _cost(
    config: ModelConfig,
    specs: Specs,
    clip: ClipShape,
    mode: Mode,
    frozen: bool,
    shapes: tuple[tuple[int, ...], int],
) -> Cost:
    """Counted on a model without numbers."""
    model = meta_model(config, specs, clip, mode)
    if frozen:
        model.freeze_towers()
    return cost_of_latents(model, specs, *shapes)


@contextmanager
def _reporting(run: Run, group: Group, first: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that takes each line; only rank 0 writes and shows anything."""
    if group.rank != 0:
        yield lambda _line: None
        return
    config = run.config
    with (
        MetricsFile(run.metrics, first) as file,
        tracked(config.track, run.root, first, to_plain(config)) as track,
        progress(f"train {config.mode}", config.steps, min(first, config.steps)) as advance,
    ):

        def report(line: dict[str, Any]) -> None:
            file.add(line)
            track(line)
            advance(_shown(line))

        yield report


def _shown(line: dict[str, Any]) -> str:
    if line["loss"] is None:
        return "not finite: not applied" if line["read_share"] else "nothing could be read"
    parts = [f"loss: video {line['loss_video']:.3f}"]
    if line["loss_audio"] is not None:
        parts.append(f"audio {line['loss_audio']:.3f}")
    parts.append(f"{line['samples_per_second']:.2f} clips/s")
    if line["mfu"] is not None:
        parts.append(f"MFU {line['mfu']:.0%}")
    return " ".join(parts)


@contextmanager
def _unalarmed() -> Iterator[None]:
    """FSDP warns of layers that return views, which nothing here changes in place."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
        yield


@contextmanager
def _determined(config: TrainConfig) -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    if config.deterministic:
        # Before cuBLAS is first called: it reads this once.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
