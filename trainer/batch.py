"""One rank's share of a step, ready for the model."""

from dataclasses import dataclass

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

    def to(self, device: torch.device) -> "Batch":
        """On a device."""
        return Batch(
            self.share.to(device),
            self.u.to(device),
            _to(self.video, device),
            None if self.audio is None else _to(self.audio, device),
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
        latents=part.latents.to(device),
        noise=part.noise.to(device),
        text=part.text.to(device),
        text_mask=part.text_mask.to(device),
    )
