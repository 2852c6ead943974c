"""Which layers compute together: what is sharded and compiled one at a time."""

from dataclasses import dataclass

from torch import nn

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
