"""Validation: the loss of held-out samples at fixed times and with fixed noise.

The noise is keyed by clip and time alone, so two runs, two steps, or the joint model and its twin
are compared on the very same problems.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float64
from numpy import ndarray
from torch import nn

from avdata.pipeline.shards.dataset import SampleEntry
from avdata.trainer.batch import Seat, stack
from avdata.trainer.flow import Losses
from avdata.trainer.group import Group
from avdata.trainer.loader import HeldOutSample

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
Errors = Float64[ndarray, "samples times modalities"]


class Reads(Protocol):
    """What validation needs of the loader."""

    def read_or_blank(self, entry: SampleEntry, noise_key: Sequence[int]) -> HeldOutSample:
        """One sample with noise keyed by `noise_key`."""
        ...


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The samples, and how they are computed."""

    entries: Sequence[SampleEntry]
    reader: Reads
    at_once: int
    """Times of one sample that are computed at once."""


@torch.no_grad()
def errors(
    model: nn.Module,
    loss: Callable[[nn.Module, Any, torch.Tensor], Losses],
    held_out: HeldOut,
    group: Group,
) -> tuple[Errors, list[SampleEntry]]:
    """Of every sample, time and modality, and the samples, the same on every rank; the ranks share
    them. Damaged ones are in neither.

    Every rank makes as many calls of the model, as a sharded one needs them all.
    """
    count = len(held_out.entries)
    found = torch.zeros(count, len(TIMES), 2, dtype=torch.float64)
    damaged = torch.zeros(count, dtype=torch.float64)
    model.eval()
    for turn in range(-(-count // group.world)):
        mine = turn * group.world + group.rank
        entry = held_out.entries[mine % count]
        for first in range(0, len(TIMES), held_out.at_once):
            chosen = range(first, min(first + held_out.at_once, len(TIMES)))
            clip = int(entry.key[:16], 16)
            read = [held_out.reader.read_or_blank(entry, (clip, k)) for k in chosen]
            seats = [
                Seat(1.0, TIMES[k], one.video, one.audio)
                for k, one in zip(chosen, read, strict=True)
            ]
            batch = stack(seats).to(group.device)
            seen, heard = loss(model, batch, batch.u).errors
            if mine < count:
                damaged[mine] += sum(one.damaged for one in read)
                found[mine, list(chosen), 0] = seen.double().cpu()
                if heard is not None:
                    found[mine, list(chosen), 1] = heard.double().cpu()
    model.train()
    summed = group.summed({"errors": found, "damaged": damaged})
    sound = summed["damaged"] == 0
    entries = [one for one, kept in zip(held_out.entries, sound, strict=True) if kept]
    return summed["errors"][sound], entries


def summary(found: Errors, entries: Sequence[SampleEntry], *, audio: bool) -> dict[str, Any]:
    """Means over all, by time, by bucket and by subset, of video and, if it is there, of audio."""
    every = range(len(entries))
    subsets = sorted({name for entry in entries for name in entry.subsets})
    return {
        **_means(found, audio=audio),
        "by_time": {str(t): _means(found[:, [k]], audio=audio) for k, t in enumerate(TIMES)},
        "by_bucket": {
            name: _means(found[[k for k in every if entries[k].bucket == name]], audio=audio)
            for name in sorted({entry.bucket for entry in entries})
        },
        "by_subset": {
            name: _means(found[[k for k in every if name in entries[k].subsets]], audio=audio)
            for name in subsets
        },
    }


def _means(found: Errors, *, audio: bool) -> dict[str, float | int]:
    seen, heard = found.mean((0, 1))
    return {
        "samples": len(found),
        "video": float(seen),
        **({"audio": float(heard)} if audio else {}),
    }
