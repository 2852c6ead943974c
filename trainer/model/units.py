"""Which layers compute together: what is sharded and compiled one at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from avdata.errors import UsageError
from avdata.trainer.model.avfulldit import AVFullDiT


@dataclass(frozen=True, slots=True)
class Unit:
    """One module that is called, and the modules of others that it uses while it runs."""

    called: nn.Module
    within: tuple[nn.Module, ...] = ()


def units(model: AVFullDiT) -> list[Unit]:
    """Every layer once; what is left over belongs to the whole model."""
    layers = list(model.video.wan.blocks)
    if model.mode == "t2v":
        return [Unit(one) for one in layers]
    singles = list(model.audio.flux.single_transformer_blocks)
    count = model.config.num_joint
    alone = [
        *layers[: len(layers) - count],
        *model.audio.flux.transformer_blocks,
        *singles[: len(singles) - count],
    ]
    pairs = zip(
        model.joints, layers[len(layers) - count :], singles[len(singles) - count :], strict=True
    )
    return [*(Unit(one) for one in alone), *(Unit(joint, (v, a)) for joint, v, a in pairs)]


def compile_units(layers: Sequence[Unit], backend: str) -> None:
    """Each layer's own computation, once for each shape and kind of layer.

    What gathers a layer's weights stays outside. UsageError where torch has no such backend.
    """
    require_backend(backend)
    # One for each kind of layer, shape and mode of gradients, and not torch's eight.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    for unit in layers:
        unit.called.forward = torch.compile(unit.called.forward, backend=backend, dynamic=False)


def require_backend(name: str) -> None:
    """UsageError where torch.compile has no such backend."""
    known = torch.compiler.list_backends(exclude_tags=())
    if name not in known:
        raise UsageError(f"compile = {name}: torch has {', '.join(known)}")
