"""What is trained here: velocities of video and audio latents, as the loop's task.

The loss of a seat, its metrics by modality and time, its digest, its cost.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
import xxhash
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor, nn

from avdata.trainer.batch import Batch
from avdata.trainer.config import TrainConfig
from avdata.trainer.flow import Losses, flow_loss, own_times, times
from avdata.trainer.loader import Loader
from avdata.trainer.model.cost import Cost
from avdata.trainer.model.modality import each_time
from avdata.trainer.task import Outcome, Seats

TIME_BINS = 10
DIGEST_BITS = 48
"""So that a float64 carries it exactly."""


@dataclass(frozen=True, slots=True)
class Denoising:
    """A `Task`."""

    config: TrainConfig
    loader: Loader
    device: torch.device
    cost_of: Callable[[Batch], Cost]
    """Of one seat of a batch; asked once for each shape."""
    measure: Callable[[int, bool, bool], dict[str, Any]]
    """Validates and samples, see `Task.measured`."""
    _costs: dict[tuple[int, ...], Cost] = field(default_factory=dict)

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """On the host, as the loader reads them."""
        return self.loader.batches(first, last)

    def seats(self, step: int) -> Seats:
        """From the plan."""
        batch = self.loader.plan.batch(step)
        return Seats(self.loader.keys(step), batch.epoch, batch.num_real)

    def parts(self, batch: Batch) -> Sequence[Batch]:
        """On the device, of `micro_batch_size` seats."""
        count = len(batch.share)
        size = self.config.micro_batch_size or count
        moved = batch.to(self.device)
        return [
            cast(Batch, _cut(moved, slice(first, first + size))) for first in range(0, count, size)
        ]

    def draws(self, batch: Batch) -> list[int]:
        """Of video's noise, the time and whether there is a caption: the same for the twin."""
        digests = []
        for seat in range(len(batch.share)):
            state = xxhash.xxh3_64(batch.video.noise[seat].numpy().tobytes())
            state.update(batch.u[seat].numpy().tobytes())
            state.update(batch.video.text_mask[seat].numpy().tobytes())
            digests.append(state.intdigest() >> (64 - DIGEST_BITS))
        return digests

    def loss(self, model: nn.Module, batch: Batch) -> Outcome:
        """At the batch's own times."""
        u = batch.u if self.config.shared_time else own_times(batch.u)
        t = times(u, self.config.time_density, self.config.time_shift)
        losses = self.losses(model, batch, t)
        real = batch.share > 0
        at, heard_at = each_time(t)
        sums = {"video": _binned(losses.errors[0], at, real)}
        broken = ~losses.errors[0].detach().isfinite()
        if losses.errors[1] is not None:
            sums["audio"] = _binned(losses.errors[1], heard_at, real)
            broken |= ~losses.errors[1].detach().isfinite()
        return Outcome(losses.total, sums, real.sum(), broken)

    def losses(self, model: nn.Module, batch: Batch, t: Float[Tensor, "b *two"]) -> Losses:
        """Under the run's precision."""
        weights = (self.config.lambda_video, self.config.lambda_audio)
        with computing(self.config, self.device):
            return flow_loss(model, batch.video, batch.audio, t, batch.share, weights)

    def line(self, sums: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
        """Losses of both modalities, and of each bin of times, over what could be read."""
        out: dict[str, Any] = {"loss_video": None, "loss_audio": None}
        for name, (total, count) in sums.items():
            out[f"loss_{name}"] = _mean(total.sum(), count.sum())
            out[f"loss_{name}_by_time"] = [_mean(*one) for one in zip(total, count, strict=True)]
        out["reader"] = self.loader.metrics()
        out["seats_by_time"] = [int(c) for c in sums["video"][1]]
        return out

    def work(self, batch: Batch) -> tuple[int, int]:
        """Counted once for each shape."""
        shape = tuple(batch.video.latents.shape[1:])
        if batch.audio is not None:
            shape += tuple(batch.audio.latents.shape[1:])
        if shape not in self._costs:
            self._costs[shape] = self.cost_of(batch)
        cost = self._costs[shape]
        return cost.flops_step, cost.tokens_video + cost.tokens_audio

    def measured(self, step: int, *, validate: bool, sample: bool) -> dict[str, Any]:
        """See `measure`."""
        return self.measure(step, validate, sample)


def computing(config: TrainConfig, device: torch.device) -> AbstractContextManager[Any]:
    """Forward passes at the run's precision."""
    half = config.precision == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=half)


def _binned(
    errors: Float[Tensor, " b"], t: Float[Tensor, " b"], real: Bool[Tensor, " b"]
) -> Float[Tensor, "two bins"]:
    """Sums of the errors of real seats, and their counts."""
    place = (t.detach() * TIME_BINS).long().clamp(0, TIME_BINS - 1)
    kept = torch.where(real, errors.detach(), 0).double()
    sums = torch.zeros(2, TIME_BINS, dtype=torch.float64, device=t.device)
    sums[0].index_add_(0, place, kept)
    sums[1].index_add_(0, place, real.double())
    return sums


def _cut(value: object, chosen: slice) -> object:
    """Some seats of a batch: of its tensors, lists and values within values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        cut = {f.name: _cut(getattr(value, f.name), chosen) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **cut)
    assert value is None or isinstance(value, (Tensor, list))
    return None if value is None else value[chosen]


def _mean(total: float, count: float) -> float | None:
    """None of nothing, and where JSON has no word for it."""
    return float(total / count) if count and math.isfinite(total) else None
