"""One rank's share of a step, ready for the model."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from avdata.trainer.flow import Clean


@dataclass(frozen=True, slots=True)
class Seat:
    """One sample, without a batch axis."""

    share: float
    u: float
    """Uniform in (0, 1): becomes the time."""
    video: Clean
    audio: Clean | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Seats stacked."""

    share: Float[Tensor, " b"]
    u: Float[Tensor, " b"]
    video: Clean
    audio: Clean | None
    keys: list[str] = field(default_factory=list)
    """Of the samples, in order."""

    def to(self, device: torch.device) -> "Batch":
        """On a device, in float32; in host memory latents and text are float16, as stored.

        On a GPU the copies run beside its work, and the host's memory is free when this returns.
        """
        if device.type != "cuda":
            return self._moved(device)
        stream, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)
        with torch.cuda.stream(stream):
            moved = self._moved(device)
        stream.synchronize()
        for tensor in _tensors(moved):
            tensor.record_stream(current)
        return moved

    def _moved(self, device: torch.device) -> "Batch":
        return Batch(
            self.share.to(device, non_blocking=True),
            self.u.to(device, non_blocking=True),
            _to(self.video, device),
            None if self.audio is None else _to(self.audio, device),
            self.keys,
        )


def stack(seats: list[Seat]) -> Batch:
    """One batch; all seats have audio or none has."""
    heard = [seat.audio for seat in seats if seat.audio is not None]
    return Batch(
        share=torch.tensor([seat.share for seat in seats]),
        u=torch.tensor([seat.u for seat in seats]),
        video=_stack([seat.video for seat in seats]),
        audio=_stack(heard) if heard else None,
    )


def _stack(parts: list[Clean]) -> Clean:
    return Clean(
        latents=torch.stack([part.latents for part in parts]),
        noise=torch.stack([part.noise for part in parts]),
        text=torch.stack([part.text for part in parts]),
        text_mask=torch.stack([part.text_mask for part in parts]),
    )


def _to(part: Clean, device: torch.device) -> Clean:
    return Clean(
        latents=part.latents.to(device, non_blocking=True).float(),
        noise=part.noise.to(device, non_blocking=True),
        text=part.text.to(device, non_blocking=True).float(),
        text_mask=part.text_mask.to(device, non_blocking=True),
    )


def _tensors(batch: Batch) -> Iterator[Tensor]:
    yield from (batch.share, batch.u)
    for part in (batch.video, batch.audio):
        if part is not None:
            yield from (part.latents, part.noise, part.text, part.text_mask)
