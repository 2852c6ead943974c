"""Rotary position embedding of both towers, and AVSyncRoPE (arXiv 2512.02457).

Positions are data: each token has one number per axis. Equal numbers are equal times once audio
positions are divided by tau, the ratio of the latents' durations. Channels turn in neighbouring
pairs, theta 10,000, as in Wan and Flux.
"""

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from avdata.trainer.model.config import Rope

THETA = 10_000.0


@dataclass(frozen=True, slots=True)
class Rotation:
    """Cosine and sine of every token's angles, (tokens, head_dim), each angle twice in a row."""

    cos: Float[Tensor, "n d"]
    sin: Float[Tensor, "n d"]

    def as_pair(self) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
        """As Flux's blocks take it."""
        return self.cos, self.sin

    def as_wan(self) -> tuple[Float[Tensor, "1 n 1 d"], Float[Tensor, "1 n 1 d"]]:
        """As Wan's blocks take it."""
        return self.cos[None, :, None], self.sin[None, :, None]


def rotate(x: Float[Tensor, "b n heads d"], by: Rotation) -> Float[Tensor, "b n heads d"]:
    """Turns queries or keys; float32 inside."""
    cos, sin = by.as_wan()
    pairs = rearrange(x.float(), "b n h (d two) -> b n h d two", two=2)
    turned = torch.stack([-pairs[..., 1], pairs[..., 0]], dim=-1).flatten(-2)
    return (x.float() * cos + turned * sin).type_as(x)


def rotation(positions: Float[Tensor, "n axes"], axis_dims: tuple[int, ...]) -> Rotation:
    """From positions; angles in float64, since bf16 or float32 lose long clips."""
    angles = []
    for axis, dim in enumerate(axis_dims):
        exponent = torch.arange(0, dim, 2, dtype=torch.float64, device=positions.device) / dim
        angles.append(positions[:, axis].double()[:, None] * THETA**-exponent)
    twice = repeat(torch.cat(angles, dim=1), "n d -> n (d two)", two=2)
    return Rotation(twice.cos().float(), twice.sin().float())


def video_axes(head_dim: int) -> tuple[int, int, int]:
    """Channels for time, height, width, as Wan splits them (128 into 44, 42, 42)."""
    side = 2 * (head_dim // 6)
    return head_dim - 2 * side, side, side


def audio_axes(head_dim: int) -> tuple[int, int, int]:
    """Channels of Flux's three axes (128 into 16, 56, 56); audio time goes into all of them."""
    first = 2 * (head_dim // 16)
    rest = (head_dim - first) // 4 * 2
    return head_dim - 2 * rest, rest, rest


def video_positions(
    grid: tuple[int, int, int], rope: Rope, tau: float, device: torch.device
) -> Float[Tensor, "n 3"]:
    """(time, row, column) of every video token; time is stretched only under `expand_video`."""
    axes = [torch.arange(size, dtype=torch.float32, device=device) for size in grid]
    if rope == "expand_video":
        axes[0] = axes[0] * tau
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)


def audio_positions(
    num_text: int, length: int, rope: Rope, tau: float, device: torch.device
) -> Float[Tensor, "n 3"]:
    """Zeros for text tokens, then the audio's own times, divided by tau under `sync`."""
    times = torch.arange(length, dtype=torch.float32, device=device)
    if rope == "sync":
        times = times / tau
    both = torch.cat([torch.zeros(num_text, device=device), times])
    return repeat(both, "n -> n axes", axes=3)
