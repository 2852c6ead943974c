"""What memory a process of a run will take, from counts alone: nothing is computed."""

from avdata.encoders.spec import Specs
from avdata.trainer.config import TrainConfig
from avdata.trainer.model.avfulldit import AVFullDiT
from avdata.trainer.model.footprint import saved_bytes
from avdata.trainer.model.units import units


def state_gib(model: AVFullDiT, config: TrainConfig, processes: int) -> dict[str, float]:
    """Everything that is kept in float32; FSDP also gathers one layer and the next."""
    every = sum(one.numel() for one in model.parameters())
    trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
    sharded, half = config.parallel.kind == "fsdp", config.precision == "bfloat16"
    share = (config.parallel.shard or processes) if sharded else 1
    found = {
        "weights": 4 * every / share,
        "gradients": 4 * trained / share,
        "optimizer": 8 * trained / share,
        "averages": 4 * trained / share if config.ema_decay is not None else 0.0,
    }
    if half and not sharded:
        # Autocast casts each weight once and keeps it until the forward pass has ended.
        found["bfloat16 copies"] = 2.0 * every
    if sharded:
        width = 2 if half else 4
        layers = units(model)
        sizes = [
            sum(p.numel() for module in (one.called, *one.within) for p in module.parameters())
            for one in layers
        ]
        # Two layers' weights, one layer's gradients, and all that is outside of layers.
        rest = every - sum(sizes)
        found["gathered"] = width * 2 * max(sizes) + 4 * max(sizes) + 8.0 * rest
    return {name: size / 2**30 for name, size in found.items()}


def activations_gib(
    model: AVFullDiT,
    config: TrainConfig,
    specs: Specs,
    shapes: tuple[tuple[int, ...], int],
    at_once: int,
) -> float:
    """An estimate of what the forward pass keeps of `at_once` samples for the backward pass."""
    saved = saved_bytes(model, specs, *shapes, at_once)
    if config.activation_checkpointing:
        # One layer's at a time, and what goes into each.
        count = len(units(model))
        tokens = shapes[0][1] * shapes[0][2] * shapes[0][3] // 4 + shapes[1]
        saved = saved // count + count * tokens * config.model.video_width * 4 * at_once
    return saved * (0.6 if config.precision == "bfloat16" else 1.0) / 2**30
