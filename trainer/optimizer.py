"""AdamW with its groups of parameters: pretrained or new, with weight decay or without."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avdata.trainer.parallel import whole

DECAYING = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding)
"""Modules whose weight decays; norms, biases and tables of modulation keep their scale."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Peak learning rates and what goes with them."""

    new: float
    pretrained: float
    weight_decay: float
    betas: tuple[float, float]


def adamw(
    model: nn.Module, rates: Rates, is_pretrained: Callable[[str], bool]
) -> torch.optim.Optimizer:
    """Over the trained parameters, in up to four groups, each with its `peak` learning rate."""
    decaying = {
        f"{name}.weight".removeprefix(".")
        for name, module in model.named_modules()
        if isinstance(module, DECAYING)
    }
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            kind = is_pretrained(name), name in decaying
            groups.setdefault(kind, []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "peak": rates.pretrained if pretrained else rates.new,
                "lr": rates.pretrained if pretrained else rates.new,
                "weight_decay": rates.weight_decay if decays else 0.0,
            }
            for (pretrained, decays), parameters in sorted(groups.items())
        ],
        betas=rates.betas,
        fused=True,
    )


def set_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Every group at this share of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share


def by_tower(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Trained parameters by the first part of their names."""
    towers: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            towers.setdefault(name.split(".")[0], []).append(parameter)
    return towers


def divide_gradients(towers: Mapping[str, list[nn.Parameter]], by: float) -> None:
    """In place."""
    for parameters in towers.values():
        for one in parameters:
            if one.grad is not None:
                one.grad.div_(by)


def gradient_norms(towers: Mapping[str, list[nn.Parameter]]) -> dict[str, Tensor]:
    """Of each tower, over all processes; the same on every one of them."""
    norms = {}
    for name, parameters in towers.items():
        gradients = [one.grad for one in parameters if one.grad is not None]
        norms[name] = whole(nn.utils.get_total_norm(gradients))
    return norms
